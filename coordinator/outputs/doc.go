// Package outputs writes what a run leaves in its output directory, at every replica, as entries of
// the log are applied:
//
//	prompt.safetensors   the prompt and the tensors it is made of (A and B): the best on the
//	                     evaluation split, or the last if there is none
//	final.safetensors    the prompt after the last step
//	adapter/             prompt.safetensors as a Hugging Face PEFT adapter
//	model/, final/       in full fine-tuning, instead of these three: the best and the last model
//	                     as directories that Transformers loads
//	metrics.jsonl        a line per committed step
//	eval.jsonl           a line per evaluation
//	job.json             the resolved settings, digests and how the job ended
//
// All but metrics.jsonl are written aside and renamed; metrics.jsonl grows by whole lines. A
// replica records everything whether it leads or not, so that any replica that survives holds the
// result.
//
// Its files:
//
//	files                the formats of the lines and of job.json
//	writer, results      the files of one job
//	recorder, queue      one job as the log applies it; the queue's jobs one after another
package outputs
