// Package checkpoint reads and writes what a trainer keeps on disk: safetensors
// files, model directories in Hugging Face's layout, soft prompts, and adapters
// for Hugging Face PEFT.
//
// Reading never trusts a file: headers, offsets and shapes are checked as the
// safetensors reference implementation checks them before any byte of a tensor
// is handed out. Writing is atomic: a reader of a path sees the old file or the
// whole new one, and a failed write leaves nothing behind.
package checkpoint
