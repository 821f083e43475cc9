// Package job resolves what is trained and on what: a user's Settings, checked against the files
// that they name, become a Job with its Spec, its data, the plan of every step and the initial
// trainer state.
//
// A Job does nothing by itself: the coordinator deals its plans to workers and commits what they
// return. Two jobs with equal specs end with equal bits on one engine build and instruction set.
package job
