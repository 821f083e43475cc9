//go:build !linux

package main

// resetPeak and peakResident know nothing outside Linux.
func resetPeak() {}

func peakResident() int64 { return 0 }
