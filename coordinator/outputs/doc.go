// Package outputs writes what a run leaves in its output directory, at every replica, as entries of
// the log are applied:
//
//	prompt.safetensors   the prompt and the tensors it is made of (A and B): the best on the
//	                     evaluation split, or the last where there is none
//	final.safetensors    the same after the last step
//	adapter/             prompt.safetensors as a Hugging Face PEFT adapter
//	model/, final/       instead of these three, in full fine-tuning: directories that Transformers loads
//	metrics.jsonl        a line per committed step
//	eval.jsonl           a line per evaluation
//	job.json             the resolved settings, digests and how the job ended
//
// All but metrics.jsonl are written aside and renamed; metrics.jsonl grows by whole lines. Whether
// a replica leads or not, it records everything, so that any replica that is left holds the result.
package outputs
