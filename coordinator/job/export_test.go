package job

import "github.com/dptune/dpt/dataset"

// What the tests in package job_test see of the inside.

// TrainExamples are the examples that the job's plans choose from.
func (j *Job) TrainExamples() []dataset.Example { return j.planner.examples }

// Labels are those that a prompt may start from.
func (j *Job) Labels() ([]string, error) { return j.labels() }
