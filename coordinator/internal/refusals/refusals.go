// Package refusals keeps log lines about refused strangers few: whoever reaches a port decides how
// often it is refused, and must not decide how much is logged.
package refusals

import "time"

// Interval is the least time between two log lines about refusals of one kind.
const Interval = 10 * time.Second

// Counter counts refusals between two log lines about them. The zero value is ready; its owner's
// lock guards it.
type Counter struct {
	count  int
	logged time.Time
}

// Add counts a refusal. It returns how many there were since the last log line if it is time for
// the next one, else 0.
func (c *Counter) Add() int {
	c.count++
	now := time.Now()
	if now.Sub(c.logged) < Interval {
		return 0
	}
	n := c.count
	c.logged, c.count = now, 0
	return n
}
