"""Scores of text without blanks between words, by hand; and that the paper's scores stay what they are to the digit."""

from __future__ import annotations

import hashlib
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibadv.rewards.answer import best_over_golden, can_score, cover_em, exact_match, f1, normalise


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("北京大学", "北 京 大 学"),
        ("東京タワー", "東 京 タ ワ ー"),
        ("ひらがな、カタカナ。", "ひ ら が な カ タ カ ナ"),
        ("กรุงเทพ", "ก ร ุ ง เ ท พ"),
        ("ວຽງຈັນ", "ວ ຽ ງ ຈ ັ ນ"),
        ("ភ្នំ", "ភ ្ ន ំ"),
        ("ရန်", "ရ န ်"),
        ("iPhone手机", "iphone 手 机"),
        ("2024年5月", "2024 年 5 月"),
        ("the 猫 and the dog", "猫 and dog"),
        ("ＡＢＣ　１２３", "abc 123"),  # full-width letters, digits and blank
        ("ｶﾞﾗｽ", "ガ ラ ス"),  # half-width Kana
        ("《红楼梦》！？（上）", "红 楼 梦 上"),
        ("U.S.A. 美国", "usa 美 国"),
        ("サム・アルトマン", "サ ム ア ル ト マ ン"),
        ("X、Y", "x y"),  # their comma is a blank, as Latin text beside it has one
        ("ไทย\u200bแลนด์", "ไ ท ย แ ล น ด ์"),
        ("辻\U000e0100", "辻"),  # a variant of the glyph
        ("서울 특별시", "서울 특별시"),  # Korean has blanks
        ("Élan vital’s", "élan vitals"),
        ("。！", ""),
    ],
)
def test_each_character_of_an_unspaced_script_is_a_word(text: str, words: str) -> None:
    assert normalise(text, "unspaced") == words
    assert normalise(normalise(text, "unspaced"), "unspaced") == words


@pytest.mark.parametrize(
    ("prediction", "golden", "em", "cover", "overlap"),
    [
        ("北京大学", "北京大学", 1, 1, 1),
        ("北京大学。", "《北京大学》", 1, 1, 1),
        ("北京 大学", "北京大学", 1, 1, 1),
        ("北京的大学", "北京大学", 0, 0, 8 / 9),  # 4 of 5 and 4 of 4: 2 * 0.8 * 1 / 1.8
        ("他在北京大学", "北京大学", 0, 1, 0.8),  # 4 of 6 and 4 of 4
        ("上海", "北京", 0, 0, 0),
        ("東京都", "東京", 0, 1, 0.8),  # 2 of 3 and 2 of 2
        ("iPhone 15手机", "iPhone15手机", 0, 0, 2 / 3.5),  # iphone|15|手|机 and iphone15|手|机: 2 of 4 and 2 of 3
        ("กรุงเทพมหานคร", "กรุงเทพ", 0, 1, 0.7),  # 7 of 13 and 7 of 7
        ("ＮＡＳＡ", "nasa", 1, 1, 1),
        ("２０２４年", "2024年", 1, 1, 1),
        ("", "北京", 0, 0, 0),
    ],
)
def test_scores_by_hand(prediction: str, golden: str, em: float, cover: float, overlap: float) -> None:
    assert exact_match(prediction, golden, "unspaced") == em
    assert cover_em(prediction, golden, "unspaced") == cover
    assert f1(prediction, golden, "unspaced") == pytest.approx(overlap)
    assert best_over_golden(prediction, ("Ort", golden), f1, "unspaced") == pytest.approx(overlap)


def test_by_words_they_are_what_they_were() -> None:
    assert f1("北京的大学", "北京大学") == exact_match("北京大学。", "北京大学") == 0
    assert normalise("《红楼梦》，ＡＢＣ") == "《红楼梦》，ａｂｃ"


@given(st.text(alphabet=string.printable, max_size=20), st.text(alphabet=string.printable, max_size=20))
def test_ascii_text_scores_alike_in_both_ways(prediction: str, golden: str) -> None:
    for score in (f1, exact_match, cover_em):
        assert score(prediction, golden, "unspaced") == score(prediction, golden)


def test_the_papers_scores_stay_as_they_were_to_the_digit() -> None:
    """Digest of 3 x 4,000 scores of drawn answers, computed by the release before there were two ways (512cbd2)."""
    draw = random.Random(7)
    words = [
        "the",
        "A",
        "Théâtre",
        "U.S.",
        "1,000",
        "yes",
        "東京",
        "東京都",
        "’s",
        "new",
        "York",
        "-",
        "ﬁn",
        "Ｙｅｓ",
        "กรุง",
        "",
    ]
    lines = []
    for _ in range(4000):
        one, other = (" ".join(draw.choices(words, k=draw.randint(0, 4))) for _ in range(2))
        lines.append(f"{f1(one, other)!r} {exact_match(one, other)!r} {cover_em(one, other)!r}")
    assert hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest() == "f1334098cd22f206c99254a1052bf4cc"


def test_what_can_score_at_all() -> None:
    assert not can_score(["the", "!!!", "A."])
    assert can_score(["the", "The Who"])
    assert can_score(["。"])
    assert not can_score(["。"], "unspaced")
