package dataset

import (
	"slices"
	"testing"
)

// lineOf has a valid line of each task.
var lineOf = map[string]string{
	"boolq": `{"question": "is it  far", "passage": "Hill -- It is far.", "idx": 7, "label": true}`,
	"cb":    `{"premise": "Ann may come.", "hypothesis": "Ann comes", "label": "neutral", "idx": 3}`,
	"copa": `{"premise": "It rained.", "choice1": "It was wet.", "choice2": "It was hot.", "question": "effect", ` +
		`"label": 0, "idx": 9}`,
	"multirc": `{"idx": 2, "version": 1.1, "passage": {"text": "<b>Sent 1: </b>Ann ran.<br>Bob sat.", "questions": [` +
		`{"question": "Who <b>ran</b>?", "answers": [{"text": "Ann", "idx": 5, "label": 1}, ` +
		`{"text": "Bob<br>", "idx": 6, "label": 0}], "idx": 4}]}}`,
	"record": `{"source": "x", "passage": {` +
		`"text": "Zoë met Bob. Bob ran\n@highlight\nZoë sat!\n@highlight\n\"Why?\"\n@highlight\nEnd",` +
		`"entities": [{"start": 8, "end": 10}, {"start": 13, "end": 15}, {"start": 0, "end": 2}]},` +
		`"qas": [{"query": "@placeholder sat", "answers": [{"start": 32, "end": 34, "text": "Zoë"}, ` +
		`{"start": 0, "end": 2, "text": "Zoë"}, {"start": 0, "end": 1, "text": "Zo"}], "idx": 1}], "idx": 8}`,
	"rte": `{"premise": "All ran.", "hypothesis": "Ann ran.", "label": "entailment", "idx": 0}`,
	"wic": `{"word": "bank", "sentence1": "The bank lends.", "sentence2": "The banks flood.", "idx": 1, ` +
		`"label": false,"start1": 4, "start2": 4, "end1": 8, "end2": 9, "version": 1.1}`,
	"wsc": `{"text": "Ann thanked the girls because they helped.", ` +
		`"target": {"span1_text": "The girls", "span1_index": 2,"span2_text": "they", "span2_index": 5}, ` +
		`"idx": 6, "label": true}`,
}

// recordSource is the source of record's line in the T5 template.
const recordSource = "record query: @placeholder sat entities: Bob, Zoë " +
	`passage: Zoë met Bob. Bob ran. Zoë sat! "Why?" End`

func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		task     string
		template Template
		want     [][3]string // ID, Source, Target of Train
	}{
		{"boolq", DPT, [][3]string{{"7", "question: is it  far passage: Hill -- It is far.", "1"}}},
		{"boolq", T5, [][3]string{{"7", "boolq passage: Hill -- It is far. question: is it  far", "True"}}},
		{"cb", DPT, [][3]string{{"3", "premise: Ann may come. hypothesis: Ann comes", "2"}}},
		{"cb", T5, [][3]string{{"3", "cb hypothesis: Ann comes premise: Ann may come.", "neutral"}}},
		{"copa", DPT, [][3]string{{"9", "premise: It rained. choice1: It was wet. choice2: It was hot.", "0"}}},
		{"copa", T5, [][3]string{
			{"9", "copa choice1: It was wet. choice2: It was hot. premise: It rained. question: effect", "choice1"},
		}},
		{"multirc", DPT, [][3]string{
			{"2/4/5", "question: Who ran? answer: Ann paragraph: Sent 1: Ann ran. Bob sat.", "1"},
			{"2/4/6", "question: Who ran? answer: Bob  paragraph: Sent 1: Ann ran. Bob sat.", "0"},
		}},
		{"multirc", T5, [][3]string{
			{"2/4/5", "multirc question: Who ran? answer: Ann paragraph: Sent 1: Ann ran. Bob sat.", "True"},
			{"2/4/6", "multirc question: Who ran? answer: Bob  paragraph: Sent 1: Ann ran. Bob sat.", "False"},
		}},
		{"record", DPT, [][3]string{
			{"8/1/0", "superglue-record " + recordSource, "Zo"},
			{"8/1/1", "superglue-record " + recordSource, "Zoë"},
		}},
		{"record", T5, [][3]string{
			{"8/1/0", recordSource, "Zo"},
			{"8/1/1", recordSource, "Zoë"},
		}},
		{"rte", DPT, [][3]string{{"0", "premise: All ran. hypothesis: Ann ran.", "0"}}},
		{"rte", T5, [][3]string{{"0", "rte hypothesis: Ann ran. premise: All ran.", "entailment"}}},
		{"wic", DPT, [][3]string{{"1", "sentence1: The bank lends. sentence2: The banks flood. word: bank", "0"}}},
		{"wic", T5, [][3]string{
			{"1", "wic sentence1: The bank lends. sentence2: The banks flood. word: bank", "False"},
		}},
		{"wsc", DPT, [][3]string{{"6", "Ann thanked the girls because * they * helped.", "the girls"}}},
		{"wsc", T5, [][3]string{{"6", "wsc: Ann thanked the girls because *they* helped.", "the girls"}}},
	} {
		s := mustLoadLines(t, c.task, "train", c.template, lineOf[c.task])
		var got [][3]string
		for _, e := range s.Train {
			got = append(got, [3]string{e.ID, e.Source, e.Target})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %s gives\n%q, want\n%q", c.task, c.template, got, c.want)
		}
	}
}

func TestEvalOfReCoRDIsPerQuery(t *testing.T) {
	s := mustLoadLines(t, "record", "val", DPT, lineOf["record"])
	if len(s.Eval) != 1 || s.Eval[0].ID != "8/1" || s.Eval[0].Target != "Zo" ||
		!slices.Equal(s.Eval[0].Answers, []string{"Zo", "Zoë"}) {
		t.Errorf("Eval is %+v, want one example 8/1 with the answers Zo and Zoë", s.Eval)
	}
}

func TestMultiRCGroupsByQuestion(t *testing.T) {
	s := mustLoadLines(t, "multirc", "val", DPT, lineOf["multirc"], lineOf["multirc"])
	var groups, ids []string
	for _, e := range s.Eval {
		groups, ids = append(groups, e.Group), append(ids, e.ID)
	}
	if want := []string{"2/4", "2/4", "2/4#2", "2/4#2"}; !slices.Equal(groups, want) {
		t.Errorf("groups are %q, want %q", groups, want)
	}
	if want := []string{"2/4/5", "2/4/6", "2/4#2/5", "2/4#2/6"}; !slices.Equal(ids, want) {
		t.Errorf("IDs are %q, want %q", ids, want)
	}
}

func TestWSCTrainsOnTrueOnly(t *testing.T) {
	untrue := `{"text": "Ann saw Eva as she left.", "target": {"span1_text": "Eva", "span1_index": 2, ` +
		`"span2_text": "she", "span2_index": 4}, "idx": 6, "label": false}`
	s := mustLoadLines(t, "wsc", "train", T5, lineOf["wsc"], untrue)
	if len(s.Train) != 1 || s.Train[0].ID != "6" {
		t.Errorf("Train is %+v, want the true example alone", s.Train)
	}
	if len(s.Eval) != 2 || s.Eval[1].ID != "6#2" || s.Eval[1].Target != "Eva" || s.Eval[1].Label != 0 {
		t.Errorf("Eval is %+v, want both examples with their nouns", s.Eval)
	}
}

func TestLabelsAndParseTemplate(t *testing.T) {
	cb := lookup(t, "CB")
	if got := cb.Labels(DPT); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("labels of cb are %q, want three digits", got)
	}
	if got := lookup(t, "wsc").Labels(T5); got != nil {
		t.Errorf("labels of wsc are %q, want none", got)
	}
	if tmpl, err := ParseTemplate(""); tmpl != DPT || err != nil {
		t.Errorf("default template is %q, %v, want %q", tmpl, err, DPT)
	}
	if _, err := ParseTemplate("gpt"); err == nil {
		t.Error("template gpt is accepted, want an error")
	}
}
