"""Files of the form in which review sites export reviews; every word in them is made up."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple


class SiteExport(NamedTuple):
    """An export, and the first review that comes of it."""

    name: str
    site: str
    content: bytes
    first: dict[str, Any]
    """Some fields of the first review."""
    reviews: int
    refused: int = 0


def _table(header: Sequence[str], *rows: Sequence[str], delimiter: str = ",") -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    writer.writerows([header, *rows])
    return file.getvalue()


TRUSTPILOT = _table(
    [
        "Domain Url",
        "Webshop Name",
        "Business Unit Id",
        "Review Id",
        "Review Created (UTC)",
        "Review Consumer User Id",
        "Review Username",
        "Review User Email",
        "Reference Id",
        "Review Title",
        "Review Content",
        "Review Stars",
        "Source Of Review",
        "Company Reply",
        "Company Reply Date (UTC)",
        "Review Language",
        "Location Name",
        "Tags",
    ],
    [
        "made-up.example",
        "Made Up",
        "bu7",
        "tp1",
        "2026-03-01 08:30:00",
        "u1",
        "Kim B.",
        "kim@made-up.example",
        "77",
        "Fast",
        "Came in two days.",
        "5",
        "Manual",
        "",
        "",
        "en",
        "Harbour",
        "a;b",
    ],
    [
        "made-up.example",
        "Made Up",
        "bu7",
        "tp2",
        "2026-03-02 09:00:00",
        "u2",
        "Jo",
        "",
        "",
        "Naja",
        "Zu spät,\nund kalt.",
        "2",
        "Organic",
        "Sorry!",
        "2026-03-03 10:00:00",
        "de",
        "",
        "",
    ],
)
PLAY = _table(
    [
        "Package Name",
        "App Version Code",
        "App Version Name",
        "Reviewer Language",
        "Device",
        "Review Submit Date and Time",
        "Review Submit Millis Since Epoch",
        "Review Last Update Date and Time",
        "Review Last Update Millis Since Epoch",
        "Star Rating",
        "Review Title",
        "Review Text",
        "Developer Reply Date and Time",
        "Developer Reply Millis Since Epoch",
        "Developer Reply Text",
        "Review Link",
    ],
    [
        "com.made.up",
        "42",
        "4.2",
        "en",
        "pixel",
        "2026-03-01T08:30:00Z",
        "1772353800000",
        "2026-03-01T08:30:00Z",
        "1772353800000",
        "4",
        "",
        "Opens fast.",
        "",
        "",
        "",
        "https://play.google.com/console/app/1/user-feedback/review-details?reviewId=gp%3A1&x=2",
    ],
    # A rating without a text.
    [
        "com.made.up",
        "42",
        "4.2",
        "de",
        "pixel",
        "2026-03-01T09:00:00Z",
        "1772355600000",
        "2026-03-01T09:00:00Z",
        "1772355600000",
        "5",
        "",
        "",
        "",
        "",
        "",
        "",
    ],
)
PLAY_API = {
    "reviews": [
        {
            "reviewId": "gp:2",
            "authorName": "Kim B.",
            "comments": [
                {
                    "userComment": {
                        "text": "\tOpens slowly.",
                        "lastModified": {"seconds": "1772353800", "nanos": 5000000},
                        "starRating": 2,
                        "reviewerLanguage": "en",
                        "appVersionName": "4.3",
                    }
                },
                {"developerComment": {"text": "We work on it.", "lastModified": {"seconds": "1"}}},
            ],
        }
    ],
    "tokenPagination": {"nextPageToken": "x"},
}
APP_STORE_API = {
    "data": [
        {
            "type": "customerReviews",
            "id": "as-1",
            "attributes": {
                "rating": 3,
                "title": "Fine",
                "body": "Does what it says.",
                "reviewerNickname": "kimb",
                "createdDate": "2026-03-01T08:30:00-08:00",
                "territory": "USA",
            },
            "relationships": {"response": {"links": {"self": "https://made-up.example/1"}}},
        },
        {
            "type": "customerReviews",
            "id": "as-2",
            "attributes": {"rating": 1, "title": "No", "body": "Crashes.", "territory": "DEU"},
        },
    ],
    "links": {"self": "https://made-up.example"},
    "meta": {"paging": {"total": 2, "limit": 2}},
}
APP_STORE_FEED = {
    "feed": {
        "author": {"name": {"label": "Made up store"}},
        "entry": [
            {
                "author": {"uri": {"label": "u"}, "name": {"label": "kimb"}, "label": ""},
                "updated": {"label": "2026-03-01T08:30:00-07:00"},
                "im:rating": {"label": "4"},
                "im:version": {"label": "4.2"},
                "id": {"label": "1234567890"},
                "title": {"label": "Good"},
                "content": {"label": "Opens fast.", "attributes": {"type": "text"}},
                "link": {"attributes": {"rel": "related"}},
            }
        ],
    }
}
YELP = [
    {
        "review_id": "y1",
        "user_id": "u1",
        "business_id": "b1",
        "stars": 4.0,
        "useful": 1,
        "funny": 0,
        "cool": 0,
        "text": "Crisp bread, friendly people.",
        "date": "2026-03-01 08:30:00",
    }
]
AMAZON_2023 = [
    {
        "rating": 5.0,
        "title": "Sturdy",
        "text": "Holds my weight.",
        "images": [{"small_image_url": "https://made-up.example/1.jpg"}],
        "asin": "A1",
        "parent_asin": "P1",
        "user_id": "U1",
        "timestamp": 1772353800000,
        "helpful_vote": 2,
        "verified_purchase": True,
    }
]
AMAZON_2018 = [
    {
        "overall": 2.0,
        "vote": "3",
        "verified": True,
        "reviewTime": "03 1, 2026",
        "reviewerID": "U1",
        "asin": "A1",
        "style": {"Size:": " Large"},
        "reviewerName": "Kim B.",
        "reviewText": "Too small.",
        "summary": "Small",
        "unixReviewTime": 1772323200,
    }
]
AMAZON_TABLE = (
    "marketplace\tcustomer_id\treview_id\tproduct_id\tproduct_parent\tproduct_title\t"
    "product_category\tstar_rating\thelpful_votes\ttotal_votes\tvine\tverified_purchase\t"
    "review_headline\treview_body\treview_date\n"
    'US\t1\tR1\tA1\t900\tA 19" shelf\tFurniture\t5\t0\t0\tN\tY\t"Sturdy\tHolds, and "well.\t'
    "2026-03-01\n"
    "US\t2\tR2\tA1\t900\tA shelf\tFurniture\t1\t0\t0\tN\tY\tNo\tBent.\t2026-03-02\n"
)


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


AT_830 = 1_772_353_800_000
EXPORTS = [
    SiteExport(
        "Trustpilot",
        "trustpilot",
        b"\xef\xbb\xbf" + TRUSTPILOT.encode(),
        {
            "review_id": "tp1",
            "business_id": "bu7",
            "text": "Came in two days.",
            "title": "Fast",
            "stars": 5.0,
            "language": "en",
            "created_at": AT_830,
            "author": "Kim B.",
            "source": "trustpilot",
            "attributes": {
                "domain": "made-up.example",
                "location": "Harbour",
                "collected": "Manual",
            },
        },
        2,
    ),
    SiteExport(
        "Play Console",
        "google-play",
        b"\xff\xfe" + PLAY.encode("utf-16-le"),
        {
            "review_id": "gp:1",
            "business_id": "com.made.up",
            "text": "Opens fast.",
            "stars": 4.0,
            "created_at": AT_830,
            "language": "en",
            "attributes": {"app_version": "4.2", "device": "pixel"},
        },
        1,
        refused=1,
    ),
    SiteExport(
        "Play Developer API",
        "google-play",
        json.dumps(PLAY_API, indent=2).encode(),
        {"review_id": "gp:2", "text": "\tOpens slowly.", "stars": 2.0, "created_at": AT_830},
        1,
    ),
    SiteExport(
        "App Store Connect API",
        "app-store",
        json.dumps(APP_STORE_API, indent=2).encode(),
        {
            "review_id": "as-1",
            "text": "Does what it says.",
            "title": "Fine",
            "stars": 3.0,
            "author": "kimb",
            "created_at": AT_830 + 8 * 3_600_000,
            "attributes": {"territory": "USA"},
        },
        2,
    ),
    SiteExport(
        "pages of App Store Connect, one a line",
        "app-store",
        _lines([APP_STORE_API, {**APP_STORE_API, "data": []}, APP_STORE_API]),
        {"review_id": "as-1"},
        4,
    ),
    SiteExport(
        "App Store feed",
        "app-store",
        json.dumps(APP_STORE_FEED).encode(),
        {
            "review_id": "1234567890",
            "text": "Opens fast.",
            "title": "Good",
            "stars": 4.0,
            "author": "kimb",
            "attributes": {"app_version": "4.2"},
        },
        1,
    ),
    SiteExport(
        "Yelp",
        "yelp",
        _lines(YELP),
        {
            "review_id": "y1",
            "business_id": "b1",
            "text": "Crisp bread, friendly people.",
            "stars": 4.0,
            "created_at": AT_830,
            "attributes": {},
        },
        1,
    ),
    SiteExport(
        "Amazon 2023",
        "amazon",
        _lines(AMAZON_2023),
        {
            "review_id": "A1-U1-1772353800000",
            "business_id": "P1",
            "text": "Holds my weight.",
            "title": "Sturdy",
            "stars": 5.0,
            "created_at": AT_830,
            "attributes": {"verified_purchase": "true"},
        },
        1,
    ),
    SiteExport(
        "Amazon 2018",
        "amazon",
        _lines(AMAZON_2018),
        {
            "review_id": "A1-U1-1772323200",
            "business_id": "A1",
            "text": "Too small.",
            "title": "Small",
            "stars": 2.0,
            "author": "Kim B.",
            "created_at": 1_772_323_200_000,
        },
        1,
    ),
    SiteExport(
        "Amazon tables",
        "amazon",
        AMAZON_TABLE.encode(),
        {
            "review_id": "R1",
            "business_id": "900",
            "text": 'Holds, and "well.',
            "title": '"Sturdy',
            "stars": 5.0,
            "attributes": {"marketplace": "US", "verified_purchase": "Y"},
        },
        2,
    ),
]
