// Package job resolves what is trained and on what: a user's Settings, checked against the files
// that they name, become a Job with its Spec, its data, the plan of every step and the initial
// trainer state.
//
//	settings, request    what a user asks for, its checks, and its encoding in the queue
//	spec, state          what decides the result, resolved; the size of the trainer state
//	job, load, cache     a job, and how settings become one
//	data, eval, plan     the training data, the evaluation, the global batch of every step
//	initial, finetune    the trainer state before the first step
//
// A Job does nothing by itself: the coordinator deals its plans to workers and commits what they
// return. Two jobs with equal specs end with equal bits on one engine build and instruction set.
package job
