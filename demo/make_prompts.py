"""Writes prompts.jsonl, the prompts of the demo: everyday things times the questions that fit them.

Every row names the `thing` asked about and the `verb` that a full answer repeats ("A kettle is used to ..."), for the
rules of the demo's verifier. Run `python demo/make_prompts.py` after a change; the output is the same every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

# Only nouns whose plural begins with the singular, so that a rule looking for "kettle" also accepts "kettles".
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

# The questions for each list, and the verb (or adjective) of the answer: "What does a bee eat?" "A bee eats nectar."
QUESTIONS: list[tuple[str, dict[str, str]]] = [
    (
        TOOLS,
        {
            "What is {a_thing} used for?": "used",
            "What is {a_thing} made of?": "made",
            "Where does {a_thing} belong?": "belong",
            "How does {a_thing} help people?": "help",
            "What does {a_thing} look like?": "look",
        },
    ),
    (
        ANIMALS,
        {
            "What does {a_thing} eat?": "eat",
            "Where does {a_thing} live?": "live",
            "What is {a_thing} known for?": "known",
            "How does {a_thing} protect itself?": "protect",
            "What does {a_thing} look like?": "look",
        },
    ),
    (
        FOODS,
        {
            "What does {a_thing} taste like?": "taste",
            "What does {a_thing} smell like?": "smell",
            "Where does {a_thing} come from?": "come",
            "What is {a_thing} best served with?": "served",
            "What does {a_thing} look like?": "look",
        },
    ),
    (
        PLACES,
        {
            "What is {a_thing} used for?": "used",
            "What is {a_thing} known for?": "known",
            "What does {a_thing} offer to visitors?": "offer",
            "Why is {a_thing} important?": "important",
            "What does {a_thing} look like?": "look",
        },
    ),
    (
        PEOPLE,
        {
            "Where does {a_thing} work?": "work",
            "How does {a_thing} help people?": "help",
            "What does {a_thing} need to know?": "know",
            "What does {a_thing} use every day?": "use",
            "What does {a_thing} wear?": "wear",
        },
    ),
]


def rows() -> Iterator[dict[str, str]]:
    for things, questions in QUESTIONS:
        for thing in things.split():
            article = "an" if thing[0] in "aeiou" else "a"
            for question, verb in questions.items():
                asked = question.format(a_thing=f"{article} {thing}")
                yield {"prompt": f"{asked} Answer in at most 12 words.", "thing": thing, "verb": verb}


def main() -> None:
    lines = [json.dumps(row) + "\n" for row in rows()]
    Path(__file__).with_name("prompts.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
