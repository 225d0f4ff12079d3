"""Captions and their words by the tokeniser that coco-caption puts in front of CIDEr, as the table of the tests.

    python bench/published_words.py --jar stanford-corenlp-3.4.1.jar

The jar is in the package pycocoevalcap; Java is needed. Captions are drawn by a seed: each odd word alone, then random
captions with some of them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

TABLE = Path(__file__).parents[1] / "tests/support/ptb_words.json"
DROPPED = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split()  # coco-caption's list, in capital letters
PLAIN = "a the dog cat man woman two red sits runs on in with large small tree house street sign clock".split()
ODD = """child's can't cannot 8:25 don't isn't it's they're we've I'll I'm he'd dogs' black-and-white t-shirt U.S. u.s.
St. Mr. No. etc. vs. a.m. p.m. 10a.m. 5pm 3.5 1,000 10,000.50 $5 50% 1/2 2/3rds and/or #1 @home & R&B AT&T rock'n'roll
'n' n't o'clock O'Brien d'oh ma'am 'tis 'twas gonna wanna gotta lemme y'all could've won't ain't children's James'
1990's 90s '90s 2-3 3-year-old A. B.C. x-ray (red) [blue] {green} "quoted" 'quoted' --- -- - ... .. . , ; : ! ? !! ?! *
+ = ~ ^ _ foo_bar café 東京 – — … ’s child’s “smart” don’t http://a.b/c me@x.org 100th 6' 5'10" 1.5x red,blue red.blue
one;two a:b 12:30pm 3:00 2009-10-11 555-1234 (555) £5 €10 5¢ 25° <b> <unk> \\ | / // CAN'T Cannot WE'RE who's""".split()


def drawn(count: int) -> list[str]:
    """Return captions, each once."""
    random_ = random.Random(0)
    texts = dict.fromkeys(form.format(word) for form in ("{}", "a {} cat", "A {}, a dog.", "the {}.") for word in ODD)
    while len(texts) < count:
        words = random_.choices(PLAIN, k=random_.randint(3, 11)) + random_.choices(ODD, k=random_.randint(0, 3))
        random_.shuffle(words)
        gaps = random_.choices([" ", ", ", ". ", "; ", " - ", "  "], [30, 2, 2, 1, 1, 1], k=len(words))
        texts["".join(map(str.__add__, words, gaps)).strip() + random_.choice(["", ".", "!", " ."])] = None
    return list(texts)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jar", type=Path, required=True)
    jar, texts = parser.parse_args().jar, drawn(1000)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write("\n".join(texts))
        file.flush()
        command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        lines = subprocess.run([*command, file.name], check=True, capture_output=True).stdout.decode().split("\n")
    found = [[word for word in line.split(" ") if word and word not in DROPPED] for line in lines]
    rows = [json.dumps([text, " ".join(words)], ensure_ascii=False) for text, words in zip(texts, found, strict=False)]
    TABLE.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
    print(f"{TABLE}: {len(rows)} captions")


if __name__ == "__main__":
    main()
