package meter

import "github.com/dptune/dpt/model/engine"

// workspace counts the numbers that it hands out. Its tensors are the other engine's; it notes the
// number of products that segments cause.
type workspace struct {
	engine.Workspace
	m     *Engine
	used  int
	marks []int
}

// NewWorkspace implements engine.Engine.
func (m *Engine) NewWorkspace() engine.Workspace {
	return &workspace{Workspace: m.Engine.NewWorkspace(), m: m}
}

func (w *workspace) set(used int) {
	w.m.live += used - w.used
	w.used = used
	w.m.peak = max(w.m.peak, w.m.live)
}

func (w *workspace) Tensor(p engine.Precision, rows, cols int) engine.Tensor {
	w.set(w.used + rows*cols)
	t := w.Workspace.Tensor(p, rows, cols)
	w.m.precision[t] = p
	return t
}

// Mask counts as the numbers that would take as much memory.
func (w *workspace) Mask(rows, cols int) engine.Mask {
	w.set(w.used + rows*((cols+31)/32))
	return w.Workspace.Mask(rows, cols)
}

func (w *workspace) View(t engine.Tensor, row, rows, col, cols int) engine.Tensor {
	v := w.Workspace.View(t, row, rows, col, cols)
	w.m.precision[v] = w.m.precision[t]
	return v
}

func (w *workspace) Segments(spec engine.SegmentSpec) engine.Segments {
	s := w.Workspace.Segments(spec)
	work := 0
	for i, q := range spec.Q {
		work += q.Len * spec.KV[i].Len
	}
	w.m.work[s] = float64(work)
	return s
}

func (w *workspace) Mark() int {
	w.marks = append(w.marks, w.used)
	return w.Workspace.Mark()
}

func (w *workspace) Release(mark int) {
	w.Workspace.Release(mark)
	w.set(w.marks[mark])
	w.marks = w.marks[:mark]
}

func (w *workspace) Reset() {
	w.Workspace.Reset()
	w.set(0)
	w.marks = w.marks[:0]
}
