// Package dataset turns the published files of the eight SuperGLUE tasks into pairs of texts, says
// which of them each training step sees, and scores predictions.
//
//	fsys, err := dataset.OpenDir("superglue")     // or "" for the embedded data
//	task, err := dataset.Lookup("record")
//	split, err := dataset.Load(fsys, task, "val", dataset.DPT)
//	...                                           // decode each of split.Eval
//	metrics, err := split.Score(predictions)
//
// # Files
//
// A data directory holds BoolQ, CB, COPA, MultiRC, ReCoRD, RTE, WiC and WSC (in any case), each
// with train.jsonl, val.jsonl and test.jsonl as super.gluebenchmark.com publishes them (version 2).
// Test files have no labels; if one does, they are used. Offsets count Unicode characters, as in
// Python.
//
// # Templates
//
// DPT is the text of the paper's code (data_utils.py), with the numbers of the classes as targets.
// T5 is the text of Google's T5 code (super_glue_*_v102 in t5/data), with the class names as
// targets. Where "_" stands for a field's text:
//
//	         DPT                                T5
//	BoolQ    question: _ passage: _             boolq passage: _ question: _
//	CB       premise: _ hypothesis: _           cb hypothesis: _ premise: _
//	COPA     premise: _ choice1: _ choice2: _   copa choice1: _ choice2: _ premise: _ question: _
//	MultiRC  question: _ answer: _ paragraph: _ multirc question: _ answer: _ paragraph: _
//	ReCoRD   superglue-record record query: _   record query: _ entities: _, _ passage: _
//	         entities: _, _ passage: _
//	RTE      premise: _ hypothesis: _           rte hypothesis: _ premise: _
//	WiC      sentence1: _ sentence2: _ word: _  wic sentence1: _ sentence2: _ word: _
//	WSC      the text with * it * marked        wsc: the text with *it* marked
//
//	         DPT targets    T5 targets
//	BoolQ    0, 1           False, True
//	CB       0, 1, 2        entailment, contradiction, neutral
//	COPA     0, 1           choice1, choice2
//	MultiRC  0, 1           False, True
//	ReCoRD   an answer      an answer
//	RTE      0, 1           entailment, not_entailment
//	WiC      0, 1           False, True
//	WSC      the noun       the noun
//
// Some of it is odd, and kept because published numbers rest on it. The paper's code adds the
// task's name to ReCoRD alone (its option add_task_prefix has no effect on the others) and does not
// tell the model whether COPA asks for the cause or the effect. It uses the plain label of RTE
// although the paper has no RTE runs (that class cannot be called as the code stands).
//
// # Choices
//
//   - ReCoRD: repeated answers and repeated entities count once, both in byte order. Highlights are
//     joined as T5 does: a bullet that does not end in . ? ! " or ' gets a full stop. Each answer
//     is a training example; evaluation decodes a query once and compares it with all answers.
//   - MultiRC: <br>, <b> and </b> are removed as both codes do. An example is one answer;
//     Example.Group is its question.
//   - WSC: spans are corrected as in wsc.fixed, which both codes use. Training sees only examples
//     whose label is true, and the target is the noun. Evaluation decodes all of them and judges by
//     wsc_simple, for both templates. (The paper's code evaluates on the true ones alone.) Where
//     the published index does not point at the pronoun, the nearest place of the pronoun is
//     marked. T5 has a special case that does the same; the paper's code leaves the text unmarked.
//   - No verbalizer is put before a source (the paper's add_verbalizer is off).
//   - An unlabeled example has no target; T5 writes <unk> and the paper's code -1.
//
// # Metrics
//
// All are percentages, as T5's evaluation code computes them:
//
//	BoolQ, COPA, RTE, WiC   accuracy
//	CB                      accuracy; f1_macro, the mean of the F1 of the three classes
//	MultiRC                 f1a, the F1 of the true answers over all questions;
//	                        em, the share of questions with every answer judged right
//	ReCoRD                  f1, em: SQuAD's word F1 and exact match after its normalization,
//	                        with the best of the answers
//	WSC                     accuracy of wsc_simple's judgement
//
// A prediction that is no label is wrong. It counts as no class for accuracy and CB, and as the
// opposite of the label for MultiRC. With DPT, white space around a label is dropped, as the
// paper's code does; with T5 it is not. Metrics.Primary is the mean of a task's metrics, as
// SuperGLUE averages them.
//
// # New tasks
//
// A task is one file of this package, such as boolq.go, with its title, labels, metrics, parser and
// score, and one line of the registry in registry.go. The tables, figures and presets of
// coordinator/lab ask Task.Heading, Task.Title and PaperOrder.
package dataset
