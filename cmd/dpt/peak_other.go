//go:build !linux

package main

import "time"

// resetPeak, peakResident and cpuTime measure nothing outside Linux.
func resetPeak() {}

func peakResident() int64 { return 0 }

func cpuTime() time.Duration { return 0 }
