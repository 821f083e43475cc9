"""Writes the goldens of this directory with the reference tokenizers.

    pip install -r requirements.txt
    python make_goldens.py [--train] [--data DIR]

--train also trains the three small models anew; the goldens of the others do not
depend on it. DIR (default: data in a folder named shared, beside the repository)
holds t5-tokenizer/ and fewglue/; without it the T5 goldens are left as they are.

All texts below are ours. Of other people's texts only digests of the ids are kept.
"""

import argparse
import base64
import hashlib
import json
import os
import pathlib
import random
import struct
import tempfile
import unicodedata
import warnings

import sentencepiece as spm
from transformers import AddedToken, AutoTokenizer, ByT5Tokenizer, T5Tokenizer

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).resolve().parent

# Ordinary text: SentencePiece alone says what its ids are.
PLAIN = [
    "", " ", "     ", "\t", "\n", " \t\r\n ", "a", " a", "a ", "  two  spaces  ", "tab\tand\nnewline",
    "The quick brown fox jumps over the lazy dog.", "question: is it raining? passage: It pours, doesn't it?",
    "don't won't it's 'quoted' \"double\"", "1,234,567.89 + 3.14e-10 = $12", "https://example.org/a_b?c=d&e=%20f#g",
    "MiXeD cAsE WORDS", "snake_case camelCase kebab-case", "word" * 40, "supercalifragilisticexpialidocious",
    "x<y && y>z", "<", "<>", "< pad >", "<extra_id_>", "<extra_id_-1>", "<extra_id_01>", "</ s>", "<PAD>", "[MASK] <mask> <s>",
    # Full width, ligatures, compatibility characters.
    "ＦＵＬＬ　ｗｉｄｔｈ　１２３", "＜/s＞ ＜pad＞", "ﬁnd ﬂow oﬀer aﬃx eﬄux ﬅ ﬆ", "① ② ⑩ Ⅳ ㎏ ℃ ™ ½ ㍿ ﷺ", "ｶﾞ ｷﾞ ﾊﾟ", "x² y₃ ª º µ",
    "“curly” ‘quotes’ – dash — long… «guillemets»", "Straße weiß GROẞ", "ǆ Ǆ ǅ ĳ ŉ",
    # Combining marks: composed, decomposed, stacked, on their own, out of canonical order.
    "café", "cafe\u0301", "e\u0301\u0302\u0323", "\u0301", " \u0301x", "q\u0307\u0323 q\u0323\u0307", "a\u0300a\u0300a\u0300",
    "Z\u0351\u036b\u0343a\u0328\u0310l\u0352\u0342g\u031eo", "한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "q\u0308\u0301", "i\u0307 İ ı",
    "\u0f77 \u0f71\u0f80", "\u0958 \u0915\u093c", "\u1e9b\u0323",
    # Emoji.
    "😀", "hi 😀😀 there", "👨‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈 🏴\U000e0067\U000e0062\U000e007f", "❤️ ☎︎ 1️⃣", "🇪🇺🇫🇷",
    # Zero width, control, private use, unassigned, noncharacters.
    "zero\u200bwidth", "\u200b", "\u200b \u200b", "a\u200db", "a\u200cb", "soft\u00adhyphen", "\ufeffbom", "word\u2060joiner", "\u202ertl\u202c",
    "\x00", "a\x00b", "\x00 \x00", "\x01\x02\x03", "a\x1cb\x1db\x1eb\x1fb", "a\x7fb", "a\x85b", "a\x0bb\x0cb", "\x1b[31mred\x1b[0m",
    "\ue000\uf8ff", "\u0378", "\uffff\ufffe", "\ufffd", "a\ufffdb", "\U0010ffff", "\U000f0000",
    # Every kind of space.
    "a\u00a0b\u1680c\u2000d\u2003e\u2009f\u202fg\u205fh\u3000i\u2028j\u2029k", "\u3000", "\u00a0\u00a0", "a\u00a0 \u3000b",
    # The space symbol itself.
    "▁", "▁▁▁", "▁a", "a▁", "a ▁ b", "a▁▁ ▁", " ▁", "▁ ", "\u2581\u0301",
    # Scripts.
    "漢字とかなカナ", "中文，标点。", "עברית שלום", "مرحبا بالعالم ﻻ ﷲ", "ไทย", "हिन्दी", "Ελληνικά", "Русский язык", "ქართული", "አማርኛ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "𐍈𒀀𓀀",
    "mixed 漢 word 漢漢 字", "漢", "漢漢漢", "a漢", "漢a", "漢 漢",
    "tie aaaa abab abcabc ,,,, .... !!!! ---- ____", "....................", "a b c d e f g h", "\\n \\t \\", "{\"k\": [1, 2]}", "~ ~~ ~~~ ~~~~ ~~~~~~",
]

# Malformed UTF-8.
MALFORMED = [
    b"\xff", b"\xff\xfe\xfd", b"a\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x28\xa1", b"\xed\xa0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xc0\x80",
    b"\xc1\xbf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xf8\x88\x80\x80\x80", b"ok \x80 ok", b"\xe2\x96 \x81",
    b" \xff ", b"e\xcc", b"\xef\xbf", b"a\xff\x00\xffb",
]

# Too long to write out.
REPEATED = [("a", 100_000), ("A", 100_000), (" ", 100_000), ("漢", 100_000), ("ab ", 30_000), ("é", 50_000), ("e\u0301", 50_000), ("\x00", 10_000),
            ("👍🏽", 10_000), ("▁", 10_000), ("q", 65_537), ("word ", 20_000), ("ﷺ", 10_000), ("xxqxxxvmmmwjllkkzzpp", 20_000), ("the quick sep da hard ", 15_000)]

# Special tokens in text: Transformers says what becomes of them. The words around
# them are plain, so that SentencePiece and the fast tokenizer agree on those.
SPECIAL = [
    "<extra_id_0>", "<extra_id_99>", "<extra_id_100>", "<pad>", "</s>", "<unk>", "a<extra_id_0>b", "a <extra_id_0> b", "a  <extra_id_0>  b",
    " <extra_id_0> ", "a</s>b", "a </s> b", "a  </s>  b", "</s></s>", "</s> </s>", "<pad>  <pad>", "<unk><unk>", "a<unk>b <unk> c",
    "x<extra_id_0><extra_id_1>y", "x <extra_id_0> <extra_id_1> y", "<extra_id_0> is <extra_id_1> of <extra_id_2>.", "the <extra_id_10>, and",
    "<extra_id_1", "<extra_id_1<extra_id_2>", "<<pad>>", "<extra_id_0>.", "</s>.", "word</s>", "</s>word", "a\t<extra_id_3>\nb", "a\u3000</s>\u00a0b",
    "<pad>a</s>", "The <extra_id_0> walks in <extra_id_1> park</s>", "</S> <Pad>", "< /s>", "<extra_id_7>s", "pre<extra_id_8>fix", "   </s>   <pad>   ",
    "<extra_id_124>", "<extra_id_125>", "a\u2028<unk>\u2028b",
]


def sha(ids, n=32):
    return hashlib.sha256(struct.pack("<%di" % len(ids), *ids)).digest()[:n].hex()


def case(text, ids, repeat=1, **more):
    c = {}
    if isinstance(text, bytes):
        c["base64"] = base64.b64encode(text).decode()
    else:
        c["text"] = text
    if repeat > 1:
        c["repeat"] = repeat
    if len(ids) > 400:
        c["sha256"] = sha(ids)
    else:
        c["ids"] = ids
    return {**c, **more}


def write(name, obj):
    def rows(v):
        if isinstance(v, list):
            return "[\n" + ",\n".join(json.dumps(x) for x in v) + "\n]"
        return json.dumps(v)
    (HERE / name).write_text("{\n" + ",\n".join(json.dumps(k) + ": " + rows(v) for k, v in obj.items()) + "\n}\n")


def encodings(sp, extra=()):
    out = [case(t, sp.encode(t)) for t in [*PLAIN, *extra]]
    out += [case(b, sp.encode(b)) for b in MALFORMED]
    out += [case(t, sp.encode(t * n), n) for t, n in REPEATED]
    return out


# --- small models of our own -------------------------------------------------


def corpus():
    """Sentences of made-up words, the same on every run."""
    r = random.Random(20)
    syllables = [a + b for a in "b d f k l m n r s t v ch sh tr".split() for b in "a e i o u ai ou é".split()]
    words = ["".join(r.choice(syllables) for _ in range(r.randrange(1, 4))) for _ in range(400)]
    words += "the a of and to in is it that was for on are with as his they at be this have from 漢 字 да нет hard sep".split()
    weights = [1 / (i + 3) for i in range(len(words))]
    for _ in range(3000):
        s = " ".join(r.choices(words, weights)[0] for _ in range(r.randrange(3, 14)))
        yield s.capitalize() + r.choice([".", "?", "!", ", 12.", "...", " (x)"])


def rules():
    """A small normalizer: a few hundred of NFKC's rules, some removals, spaces."""
    table = {}
    for cp in [*range(0xA0, 0x180), *range(0x2000, 0x2070), *range(0x2460, 0x2474), *range(0xFB00, 0xFB07), *range(0xFF01, 0xFF5F), 0x3000, 0xFDFA]:
        if (to := unicodedata.normalize("NFKC", chr(cp))) != chr(cp):
            table[chr(cp)] = to
    for base in "aeioucnAEIOUCN":
        for mark in "\u0300\u0301\u0302\u0303\u0308\u0327":
            if len(to := unicodedata.normalize("NFC", base + mark)) == 1:
                table[base + mark] = to
    for cp in [*range(1, 9), *range(0xE, 0x20), 0x7F, 0xAD, 0x200B, 0xFEFF]:
        table[chr(cp)] = ""
    for cp in [9, 10, 11, 12, 13, 0x85, 0x2028]:
        table[chr(cp)] = " "
    table |= {"~": "-", "~~": "=", "~~~": "ab c"}  # rules that begin alike
    hexes = lambda s: " ".join("%X" % ord(c) for c in s)
    return "".join(f"{hexes(k)}\t{hexes(v)}\n" for k, v in sorted(table.items()))


def train(name, **options):
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)  # a model keeps the paths it was trained with
        pathlib.Path("rules.tsv").write_text(rules())
        if "normalization_rule_name" not in options:
            options["normalization_rule_tsv"] = "rules.tsv"
        spm.SentencePieceTrainer.train(
            sentence_iterator=corpus(), model_prefix="m", model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            character_coverage=1.0, num_threads=1, minloglevel=2, **options)
        (HERE / f"{name}.model").write_bytes(pathlib.Path("m.model").read_bytes())
        os.chdir(HERE)


def fields(data):
    """The fields of a protocol buffer message: (number, value)."""
    def varint(i):
        v = shift = 0
        while True:
            v |= (data[i] & 0x7F) << shift
            shift += 7
            i += 1
            if data[i - 1] < 0x80:
                return v, i
    i = 0
    while i < len(data):
        tag, i = varint(i)
        if tag & 7 == 0:
            v, i = varint(i)
        elif tag & 7 == 2:
            n, i = varint(i)
            v, i = data[i:i + n], i + n
        else:
            n = {1: 8, 5: 4}[tag & 7]
            v, i = data[i:i + n], i + n
        yield tag >> 3, v


def small_json(sp):
    """small.model's tokenizer.json as Transformers writes it."""
    norm = next(v for k, v in fields((HERE / "small.model").read_bytes()) if k == 3)
    charsmap = next(v for k, v in fields(norm) if k == 2)
    vocab = [(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.vocab_size())]
    vocab += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    extra = [AddedToken(f"<extra_id_{i}>", lstrip=True, rstrip=True, special=True, normalized=False) for i in range(100)]
    tok = T5Tokenizer(vocab=vocab, _spm_precompiled_charsmap=charsmap, additional_special_tokens=extra)
    with tempfile.TemporaryDirectory() as tmp:
        tok.save_pretrained(tmp)
        text = json.loads((pathlib.Path(tmp) / "tokenizer.json").read_text())
    (HERE / "small.tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")) + "\n")
    return tok


def small():
    sp = spm.SentencePieceProcessor(model_file=str(HERE / "small.model"))
    tok = small_json(sp)
    write("small.json", {"encode": encodings(sp, list(corpus())[:40]), **transformers_goldens(tok, 17)})
    symbols = ["<sep>", "a<sep>b", " <sep> <sep>", "<sep><sep> x", "hard", "so hard", "x▁hard", " hard hard", "＜sep＞", "ééé", "aéb", "<ctl>", "ab<abc", "<abc><abcd>"]
    for name in ["symbols", "bytes"]:
        sp = spm.SentencePieceProcessor(model_file=str(HERE / f"{name}.model"))
        write(f"{name}.json", {"encode": encodings(sp, symbols + list(corpus())[:10])})


# --- Transformers ------------------------------------------------------------


def transformers_goldens(tok, seed):
    def ids(t, **kw):
        return tok(t, **kw)["input_ids"]
    r = random.Random(seed)
    n = len(tok)
    rows = [ids(t, add_special_tokens=False) for t in SPECIAL]
    rows += [[r.randrange(n) if r.random() < 0.9 else r.choice([0, 1, 2, n - 1]) for _ in range(r.randrange(0, 12))] for _ in range(60)]
    cut = ["", "one", "one two three four five", "one two</s>", "one</s>two three", "<extra_id_0> one </s>"]
    return {
        "special": [case(t, ids(t, add_special_tokens=False)) for t in SPECIAL],
        "decode": [{"ids": x, "text": tok.decode(x, skip_special_tokens=True)} for x in rows],
        "truncate": [case(t, ids(t, truncation=True, max_length=m), max=m) for t in cut for m in (1, 2, 4, 8, 64)],
    }


def byt5():
    tok = ByT5Tokenizer()
    spaces = ["a\x1c</s>\x1db", "a\x85<pad>\x1fb", "a\u200b<unk>\u200bb", "a\u2029 <pad>\ufeff b", "a\u1680\u202f</s>\u205f\u3000\x0b\x0cb", "a\t<extra_id_4>\tb"]
    enc = [case(t, tok(t, add_special_tokens=False)["input_ids"]) for t in [*PLAIN, *spaces]]
    write("byt5.json", {"encode": enc, **transformers_goldens(tok, 23)})


# --- T5 ------------------------------------------------------------------------


def strings(line):
    """A line itself and, sorted, every string value in its JSON."""
    found = []
    def walk(v):
        if isinstance(v, str):
            found.append(v)
        for x in v if isinstance(v, list) else v.values() if isinstance(v, dict) else ():
            walk(x)
    walk(json.loads(line))
    return [line, *sorted(found)]


def t5(data):
    model = data / "t5-tokenizer" / "spiece.model"
    sp = spm.SentencePieceProcessor(model_file=str(model))
    tok = AutoTokenizer.from_pretrained(str(data / "t5-tokenizer"))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    write("t5.json", {"model": digest, "encode": encodings(sp), **transformers_goldens(tok, 11)})
    real = {"model": digest}
    for f in sorted((data / "fewglue").glob("*/*.jsonl")):
        rows = [s for line in f.read_text().split("\n") if line for s in strings(line)]
        real[f"{f.parent.name}/{f.name}"] = " ".join(sha(sp.encode(s), 6) for s in rows)
    (HERE / "t5-real.json").write_text(json.dumps(real, indent=0) + "\n")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--train", action="store_true")
    p.add_argument("--data", type=pathlib.Path, default=HERE.parents[3] / "shared" / "data")
    a = p.parse_args()
    if a.train:
        train("small", vocab_size=600)
        train("symbols", vocab_size=400, user_defined_symbols=["<sep>", "▁hard", "éé", "<abc", "<abc>"], control_symbols=["<ctl>"], treat_whitespace_as_suffix=True)
        train("bytes", vocab_size=600, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False)
    small()
    byt5()
    if a.data.is_dir():
        t5(a.data)
    else:
        print(f"{a.data} is missing: the T5 goldens stay as they are")
