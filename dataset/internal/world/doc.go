// Package world is a small world of people, things and deeds: its vocabulary, its facts, how to
// tell them, and what follows from them. The tasks of package mini and the texts of package corpus
// are both made of it and share nothing else: see Side.
//
// Texts are short and the vocabulary is small and distinct, because the models that read them are
// tiny and read letter by letter. No two names have the same first two letters.
//
// A prng.Source makes all choices, so a text is a pure function of the source's seed on every
// platform.
package world
