"""SuperGLUE's published files as the text pairs that the DPT code trains on with its default options.

Written from the authors' data_utils.py and from the readers of SuperGLUE that it loads (Hugging Face's super_glue),
and not from the Go package dataset, which is compared with it.
"""

import json
import pathlib
import re
from dataclasses import dataclass

DIRECTORIES = {
    "boolq": "BoolQ",
    "cb": "CB",
    "copa": "COPA",
    "multirc": "MultiRC",
    "record": "ReCoRD",
    "rte": "RTE",
    "wic": "WiC",
    "wsc": "WSC",
}


@dataclass(frozen=True)
class Example:
    """One training example. where is its place in the file: the line's idx and, behind slashes, those of its parts."""

    where: str
    source: str
    target: str


def train(data, task):
    """The training examples of a task, in the order of its file."""
    path = pathlib.Path(data) / DIRECTORIES[task] / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return [example for row in rows for example in READERS[task](row)]


def by_id(data, task):
    """Training examples by the ids that the program logs: where they are, with "#2" and so on at a repeated idx."""
    uses, found = {}, {}

    def unique(base):
        uses[base] = uses.get(base, 0) + 1
        return base if uses[base] == 1 else f"{base}#{uses[base]}"

    # MultiRC numbers repeated questions and ReCoRD repeated queries; each is a run of examples.
    run, seen = None, set()
    for example in train(data, task):
        head, _, tail = example.where.rpartition("/")
        if task not in ("multirc", "record"):
            found[unique(example.where)] = example
            continue
        if run is None or run[0] != head or tail in seen:
            run, seen = (head, unique(head)), set()
        seen.add(tail)
        found[f"{run[1]}/{tail}"] = example
    return found


def texts(data):
    """Every string in every file of the data, whatever its role, once each and in a fixed order."""
    found = {}

    def walk(value):
        if isinstance(value, str):
            found.setdefault(value)
        elif isinstance(value, dict):
            for key in value:
                walk(value[key])
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for path in sorted(pathlib.Path(data).glob("*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                walk(json.loads(line))
    for task in DIRECTORIES:
        for example in train(data, task):
            found.setdefault(example.source)
            found.setdefault(example.target)
    return list(found)


def _joined(*parts):
    return " ".join(parts)


def _boolq(row):
    label = str(int(row["label"]))
    yield Example(str(row["idx"]), _joined("question:", row["question"], "passage:", row["passage"]), label)


def _entailment(labels):
    def read(row):
        source = _joined("premise:", row["premise"], "hypothesis:", row["hypothesis"])
        yield Example(str(row["idx"]), source, str(labels.index(row["label"])))

    return read


def _copa(row):
    source = _joined("premise:", row["premise"], "choice1:", row["choice1"], "choice2:", row["choice2"])
    yield Example(str(row["idx"]), source, str(row["label"]))


def _plain(text):
    return re.sub("<(/)?b>", "", re.sub("<br>", " ", text))


def _multirc(row):
    passage = row["passage"]
    for question in passage["questions"]:
        for answer in question["answers"]:
            source = _joined(
                "question:", _plain(question["question"]),
                "answer:", _plain(answer["text"]),
                "paragraph:", _plain(passage["text"]),
            )
            yield Example(f"{row['idx']}/{question['idx']}/{answer['idx']}", source, str(answer["label"]))


def _record(row):
    text = row["passage"]["text"]
    entities = sorted({text[e["start"] : e["end"] + 1] for e in row["passage"]["entities"]})
    passage = re.sub(r"(\.|\?|\!|\"|\')\n@highlight\n", r"\1 ", text)
    passage = re.sub(r"\n@highlight\n", ". ", passage)
    for query in row["qas"]:
        source = f"superglue-record record query: {query['query']} entities: {', '.join(entities)} passage: {passage}"
        for i, answer in enumerate(sorted({a["text"] for a in query["answers"]})):
            yield Example(f"{row['idx']}/{query['idx']}/{i}", source, answer)


def _wic(row):
    source = _joined("sentence1:", row["sentence1"], "sentence2:", row["sentence2"], "word:", row["word"])
    yield Example(str(row["idx"]), source, str(int(row["label"])))


def _fixed(span, index, text):
    """A span as super_glue's wsc.fixed corrects it: the case of its first letter, a full stop, a line break."""
    if span in text or span in ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin"):
        return span
    first = text.split()[index][0]
    head = span[0].lower() if first.islower() else span[0].upper()
    return (head + span[1:]).rstrip(".").replace("\n", " ")


def _wsc(row):
    if not row["label"]:
        return
    text, target = row["text"], row["target"]
    noun = _fixed(target["span1_text"], target["span1_index"], text)
    pronoun = _fixed(target["span2_text"], target["span2_index"], text)
    before = rf"^((?:\S+\s){{{target['span2_index']}}})({re.escape(pronoun)})"
    yield Example(str(row["idx"]), re.sub(before, r"\1* \2 *", text), noun)


READERS = {
    "boolq": _boolq,
    "cb": _entailment(["entailment", "contradiction", "neutral"]),
    "copa": _copa,
    "multirc": _multirc,
    "record": _record,
    "rte": _entailment(["entailment", "not_entailment"]),
    "wic": _wic,
    "wsc": _wsc,
}


def byte_pair(source, target, max_source, max_target):
    """The byte-level ids (ByT5: a byte plus 3) of a pair, each cut so that </s> is still its last."""

    def ids(text, limit):
        return [b + 3 for b in text.encode("utf-8")][: limit - 1] + [1]

    return ids(source, max_source), ids(target, max_target)
