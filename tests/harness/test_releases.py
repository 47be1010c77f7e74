"""Datasets in the formats of their releases, and files of the user's: what is read, and what is wrong in a sentence."""

from __future__ import annotations

import json

from downstream_data import CLOZET, load, refusal

from lmsat_plugin.harness.metadata_keys import check_metadata


def test_cluewsc_pairs_right_and_wrong(asked):
    """A pronoun with a right antecedent alone is left out; of several wrong ones the first in the data is taken."""
    docs = load("lmsat-cluewsc").eval_docs
    assert [(doc["option1"], doc["option2"], doc["answer"]) for doc in docs] == [
        ("床", "手机", "2"),
        ("老师", "学生", "1"),
    ]
    assert docs[0]["sentence"] == "床上枕头旁边的手机响了，现在_又响了。"


def test_files_that_are_missing_or_wrong_are_named(asked, files, tmp_path):
    assert refusal("lmsat-emergence") == (
        "lmsat-nlpcc-kbqa has no data on the Hub: give its file with --metadata nlpcc_kbqa=FILE, or run "
        "lmsat-emergence-hub, which leaves out the tasks that need one"
    )
    assert "--metadata clozet=FILE" in refusal("lmsat-emergence", nlpcc_kbqa=files["nlpcc_kbqa"])
    assert refusal("lmsat-clozet", clozet="nowhere") == "clozet=nowhere is no file: correct its name"
    assert refusal("lmsat-storycloze", storyclose="x") == ("unknown setting 'storyclose': did you mean storycloze?")
    bad = tmp_path / "bad"
    for text, key, words in [
        ("", "clozet", "has no JSON lines"),
        ('{"story": "no gap"}', "clozet", "line 1: no JSON with story"),
        (json.dumps({**CLOZET, "label": "2"}), "clozet", "line 1"),
        ("[]", "clozet", "line 1"),
        ("hello", "nlpcc_kbqa", "has no line that begins with <question id=1>"),
        ("<question id=7>\tWho?\n", "nlpcc_kbqa", "has no <answer id=7>"),
        ("InputStoryid,InputSentence1\na,b\n", "storycloze", "story 1: no InputSentence2"),
    ]:
        bad.write_text(text)
        assert words in refusal(f"lmsat-{key.replace('_', '-')}", **{key: str(bad)})
    bad.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in refusal("lmsat-clozet", clozet=str(bad))
    assert asked == []
    check_metadata({"clozet": "x", "nlpcc_kbqa": "y", "storycloze": "z"}, ())
