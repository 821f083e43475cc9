// Package refusals bounds the log lines about refused strangers: whoever reaches a port decides how
// often it is refused, and must not decide how much is logged.
package refusals

import "time"

// interval is the shortest time between two log lines about refusals of one kind.
const interval = 10 * time.Second

// Counter counts the refusals of one kind. The zero value is ready to use. The owner's lock guards
// it.
type Counter struct {
	count  int       // refusals since the last log line
	logged time.Time // when that was; zero before the first
}

// Add counts a refusal. If it is time for the next log line, Add returns the number of refusals
// since the last one, this one included, and the caller logs it; else it returns 0.
func (c *Counter) Add() int {
	c.count++
	now := time.Now()
	if now.Sub(c.logged) < interval {
		return 0
	}
	n := c.count
	c.logged, c.count = now, 0
	return n
}
