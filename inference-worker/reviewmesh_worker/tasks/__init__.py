"""The tasks a worker answers and the labels that each of them may give.

The order of a tuple is the order of a model head's outputs: it is stored with the weights and
compared when they are loaded.
"""

from __future__ import annotations

from typing import Final

NER: Final = "ner"
TOPIC: Final = "topic"
SENTIMENT: Final = "sentiment"
TASKS: Final = (NER, TOPIC, SENTIMENT)

ENTITY_LABELS: Final = ("person", "location", "organization", "product", "creative_work")
OUTSIDE: Final = "O"
TAGS: Final = (OUTSIDE, *(f"{mark}-{label}" for label in ENTITY_LABELS for mark in "BI"))

SENTIMENT_LABELS: Final = ("positive", "negative", "neutral", "mixed")
POLARITIES: Final = ("positive", "negative", "neutral")

TOPIC_IDS: Final = (
    "account-management.account-access",
    "company-brand.competitor",
    "company-brand.general-satisfaction",
    "company-brand.reviews",
    "logistics-rides.speed",
    "online-experience.app-website",
    "purchase-booking-experience.ease-of-use",
    "staff-support.attitude-of-staff",
    "staff-support.email",
    "staff-support.phone",
    "value.discounts-promotions",
    "value.price-value-for-money",
)

LABELS_OF_TASK: Final = {NER: ENTITY_LABELS, TOPIC: TOPIC_IDS, SENTIMENT: SENTIMENT_LABELS}
