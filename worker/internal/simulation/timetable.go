package simulation

import (
	"container/heap"
	"time"
)

// task is something that the director is to do at a time.
type task struct {
	at  time.Duration
	seq int // orders tasks of one time by their scheduling
	do  func()
}

// taskHeap is a heap of tasks, the next one first. It implements heap.Interface.
type taskHeap []*task

func (t taskHeap) Len() int { return len(t) }
func (t taskHeap) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].seq < t[j].seq
}
func (t taskHeap) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *taskHeap) Push(x any)   { *t = append(*t, x.(*task)) }
func (t *taskHeap) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

// schedule puts a task on the timetable. Only the director calls it.
func (w *world) schedule(at time.Duration, do func()) {
	w.taskCount++
	heap.Push(&w.timetable, &task{at, w.taskCount, do})
}
