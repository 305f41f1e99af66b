"""Prompts to verify an adapter with where the user names none: they need no file and no network."""

QUESTIONS = (
    "Hi, can you help me book a bus to Fresno for tomorrow morning?",
    "What is the capital of France, and what is it known for?",
    "Write a short poem about the sea.",
    "Explain to a child why the sky is blue.",
    "Write a Python function that reverses a list without changing the original.",
    "I want to find a restaurant in San Jose for two people.",
    "Translate into German: The train leaves at half past eight.",
    "Summarise in one sentence: Water evaporates from the sea, forms clouds and falls as rain.",
    "List the numbers from one to twenty.",
    "Give me three tips for sleeping better.",
    "A shirt costs 20 dollars and is reduced by a quarter. What does it cost now?",
    "Who wrote Pride and Prejudice, and when?",
    'Make a JSON object with the keys "name", "age" and "city" for an invented person.',
    "What is the difference between a list and a tuple?",
    "Write a polite letter asking a neighbour to turn the music down.",
    "Continue the story: The door opened, and behind it was",
)
