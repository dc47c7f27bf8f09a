"""Writes prompts.jsonl, the prompts of the demo: everyday things times the questions that fit them.

Every row names the `thing` asked about and the `phrase` with which a full answer takes up the question ("A kettle is
used to boil water."), for the rules of the demo's verifier. Run `python demo/make_prompts.py` after a change; the
output is the same every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

TOOLS = """
    backpack bicycle blanket broom bucket camera candle clock compass drill fork guitar hammer helmet iron jacket kettle
    key kite ladder lamp lighter magnet mirror needle oven pan pencil piano pillow raincoat ruler saw shovel spoon
    stove telescope tent thermometer towel umbrella vacuum wallet whistle
"""
ANIMALS = """
    ant bat bear bee camel cat chicken cow crab crocodile dog dolphin donkey duck eagle elephant frog giraffe goat horse
    kangaroo koala lion lizard monkey owl panda parrot penguin pig rabbit seal shark snail snake spider squirrel swan
    tiger turtle whale zebra
"""
FOODS = """
    apple bagel banana burger burrito cake carrot cheesecake coconut cookie croissant cucumber donut grape lemon lime
    mango melon muffin mushroom olive omelet onion orange pancake peach pear pepper pickle pineapple pizza plum pretzel
    pumpkin radish salad sandwich sausage soup steak taco waffle watermelon
"""
PLACES = """
    airport aquarium beach bridge cafe castle cave cinema desert farm forest garden gym harbor hospital hotel island
    jungle kitchen lake lighthouse market mountain museum office park playground port prison restaurant river school
    shop stadium station studio supermarket theater tower village volcano zoo
"""
PEOPLE = """
    actor artist astronaut baker barber builder butcher carpenter chef coach dancer dentist designer detective doctor
    driver editor electrician engineer farmer firefighter gardener judge journalist lawyer librarian mechanic miner
    musician nurse painter pharmacist photographer pilot plumber referee sailor scientist soldier surgeon tailor teacher
"""

# The questions for each list, and the phrase of the answer: "What does a bee eat?" "A bee eats nectar."
QUESTIONS: list[tuple[str, dict[str, str]]] = [
    (
        TOOLS,
        {
            "What is {a_thing} used for?": "is used",
            "What is {a_thing} made of?": "is made of",
            "Where does {a_thing} belong?": "belongs",
            "How does {a_thing} help people?": "helps",
            "What does {a_thing} look like?": "looks like",
        },
    ),
    (
        ANIMALS,
        {
            "What does {a_thing} eat?": "eats",
            "Where does {a_thing} live?": "lives",
            "What is {a_thing} known for?": "is known for",
            "How does {a_thing} protect itself?": "protects",
            "What does {a_thing} look like?": "looks like",
        },
    ),
    (
        FOODS,
        {
            "What does {a_thing} taste like?": "tastes like",
            "What does {a_thing} smell like?": "smells like",
            "Where does {a_thing} come from?": "comes from",
            "What is {a_thing} best served with?": "is best served with",
            "What does {a_thing} look like?": "looks like",
        },
    ),
    (
        PLACES,
        {
            "What is {a_thing} used for?": "is used",
            "What is {a_thing} known for?": "is known for",
            "What does {a_thing} offer to visitors?": "offers",
            "Why is {a_thing} important?": "is important",
            "What does {a_thing} look like?": "looks like",
        },
    ),
    (
        PEOPLE,
        {
            "Where does {a_thing} work?": "works",
            "How does {a_thing} help people?": "helps",
            "What does {a_thing} need to know?": "needs",
            "What does {a_thing} use every day?": "uses",
            "What does {a_thing} wear?": "wears",
        },
    ),
]


def rows() -> Iterator[dict[str, str]]:
    for things, questions in QUESTIONS:
        for thing in things.split():
            article = "an" if thing[0] in "aeiou" else "a"
            for question, phrase in questions.items():
                asked = question.format(a_thing=f"{article} {thing}")
                yield {"prompt": f"{asked} Answer in at most 12 words.", "thing": thing, "phrase": phrase}


def main() -> None:
    lines = [json.dumps(row) + "\n" for row in rows()]
    Path(__file__).with_name("prompts.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
