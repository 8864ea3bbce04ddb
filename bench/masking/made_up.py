"""500 made-up reviews with 12 kinds of personal data in 5 languages, the same in every run.

Nobody's data: numbers come from a seeded generator, with check digits where their kind has them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits

REVIEWS = 500
SEED = 12
LANGUAGES = ("en", "de", "da", "fr", "es")


@dataclass(frozen=True, slots=True)
class Planted:
    """`text[start:end]` is personal data of this kind, in code points."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class MadeUp:
    text: str
    language: str
    planted: tuple[Planted, ...]


FIRST = {
    "en": ("Olivia", "Harry", "Grace", "Callum", "Poppy", "Theo"),
    "de": ("Jürgen", "Anneliese", "Björn", "Heike", "Wolfgang", "Käthe"),
    "da": ("Søren", "Kirsten", "Jeppe", "Åse", "Birgitte", "Mads"),
    "fr": ("Élodie", "Benoît", "Chloé", "Thierry", "Océane", "Gaël"),
    "es": ("Íñigo", "Lucía", "Joaquín", "Begoña", "Álvaro", "Nuria"),
}
LAST = {
    "en": ("Whitfield", "O'Hara", "Pemberton", "Ashdown"),
    "de": ("Müller-Lüdenscheidt", "Großmann", "Kühn", "Brandstätter"),
    "da": ("Østergaard", "Kjær", "Bruun", "Thorsen"),
    "fr": ("Lefèvre", "D'Aubigny", "Marchand", "Beauchêne"),
    "es": ("Ibáñez", "Núñez", "Echeverría", "Del Río"),
}
# Each with a place for a piece of personal data of that kind.
SENTENCES = {
    "en": {
        "email": ("Nobody answers at {}.", "I wrote to {} twice!"),
        "phone": ("Call me on {} please.", "Their line ({}) is always busy."),
        "card": ("They charged my card {} twice.", "My {} was declined."),
        "iban": ("Refund to {} never came.", "I gave them {} for the deposit."),
        "url": ("Proof is at {} for all to see.", "See {}"),
        "ip": ("They blocked my address {} without a reason.", "Hacked from {}, they say."),
        "mac": ("The router {} never joined.", "Device {} was dead on arrival."),
        "handle": ("I am {} if you want to talk.", "Thanks to {} for the tip!"),
        "national id": ("They even asked for my number {}.", "My {} was on the parcel."),
        "customer number": ("Booking {} was lost.", "Look up {} and call back."),
        "coordinates": ("They left it at {}, in a ditch.", "Meet at {} they said."),
        "name": ("{} at the desk was rude.", "We were helped by {} all the way."),
    },
    "de": {
        "email": ("Unter {} antwortet niemand.", "Ich habe an {} geschrieben!"),
        "phone": ("Bitte rufen Sie mich unter {} an.", "Die Nummer {} ist immer besetzt."),
        "card": ("Meine Karte {} wurde doppelt belastet.", "Die {} wurde abgelehnt."),
        "iban": ("Die Rückzahlung auf {} kam nie.", "Ich gab ihnen {} an."),
        "url": ("Der Beweis steht unter {} für alle.", "Siehe {}"),
        "ip": ("Meine Adresse {} wurde gesperrt.", "Angeblich ein Angriff von {} aus."),
        "mac": ("Der Router {} ging nie ans Netz.", "Gerät {} war defekt."),
        "handle": ("Ich bin {} auf Instagram.", "Danke an {} für den Tipp!"),
        "national id": ("Sie wollten sogar meine Nummer {}.", "Meine {} stand auf dem Paket."),
        "customer number": ("Buchung {} ging verloren.", "Suchen Sie {} und rufen an."),
        "coordinates": ("Abgestellt bei {}, im Graben.", "Treffpunkt {} sagten sie."),
        "name": ("{} am Empfang war unfreundlich.", "Uns half {} sehr gut."),
    },
    "da": {
        "email": ("Ingen svarer på {}.", "Jeg skrev til {} to gange!"),
        "phone": ("Ring til mig på {} tak.", "Deres nummer {} er altid optaget."),
        "card": ("De trak to gange på kort {}.", "Mit {} blev afvist."),
        "iban": ("Pengene til {} kom aldrig.", "Jeg gav dem {} til depositum."),
        "url": ("Beviset ligger på {} for alle.", "Se {}"),
        "ip": ("De spærrede min adresse {} uden grund.", "Hacket fra {}, siger de."),
        "mac": ("Routeren {} kom aldrig på.", "Enheden {} var død."),
        "handle": ("Jeg er {} hvis I vil tale.", "Tak til {} for tippet!"),
        "national id": ("De ville endda have mit nummer {}.", "Mit {} stod på pakken."),
        "customer number": ("Ordre {} blev væk.", "Slå {} op og ring tilbage."),
        "coordinates": ("De stillede den ved {}, i en grøft.", "Mød os ved {} sagde de."),
        "name": ("{} i receptionen var sur.", "Vi fik god hjælp af {} hele vejen."),
    },
    "fr": {
        "email": ("Personne ne répond à {}.", "J'ai écrit à {} deux fois !"),
        "phone": ("Appelez-moi au {} merci.", "Leur ligne {} est toujours occupée."),
        "card": ("Ils ont débité ma carte {} deux fois.", "Ma {} a été refusée."),
        "iban": ("Le remboursement sur {} n'est jamais venu.", "J'ai donné {} pour la caution."),
        "url": ("La preuve est sur {} pour tous.", "Voir {}"),
        "ip": ("Mon adresse {} a été bloquée.", "Attaque depuis {}, disent-ils."),
        "mac": ("Le routeur {} n'a jamais marché.", "L'appareil {} était mort."),
        "handle": ("Je suis {} pour en parler.", "Merci à {} pour le conseil !"),
        "national id": ("Ils voulaient même mon numéro {}.", "Mon {} était sur le colis."),
        "customer number": ("La commande {} est perdue.", "Cherchez {} et rappelez."),
        "coordinates": ("Déposé à {}, dans un fossé.", "Rendez-vous à {} disaient-ils."),
        "name": ("{} à l'accueil était désagréable.", "Très bien aidés par {} du début à la fin."),
    },
    "es": {
        "email": ("Nadie contesta en {}.", "¡Escribí a {} dos veces!"),
        "phone": ("Llámenme al {} por favor.", "Su línea {} siempre comunica."),
        "card": ("Cobraron dos veces en mi tarjeta {}.", "Mi {} fue rechazada."),
        "iban": ("El reembolso a {} nunca llegó.", "Les di {} para la fianza."),
        "url": ("La prueba está en {} para todos.", "Véase {}"),
        "ip": ("Bloquearon mi dirección {} sin motivo.", "Atacado desde {}, dicen."),
        "mac": ("El router {} nunca conectó.", "El aparato {} llegó muerto."),
        "handle": ("Soy {} si quieren hablar.", "¡Gracias a {} por el consejo!"),
        "national id": ("Hasta pidieron mi número {}.", "Mi {} estaba en el paquete."),
        "customer number": ("La reserva {} se perdió.", "Busquen {} y llamen."),
        "coordinates": ("Lo dejaron en {}, en una zanja.", "Quedamos en {} dijeron."),
        "name": ("{} en recepción fue grosera.", "Nos atendió {} de maravilla."),
    },
}
# Without personal data, yet with digits and names of firms: what is masked here is masked in vain.
PLAIN = {
    "en": ("Room 412 was fine, 5 stars.", "We paid 1,299.00 on 12.11.2023 at booking.com."),
    "de": ("Zimmer 412 war gut, 10115 Berlin.", "Am 12.11.2023 um 18:30 Uhr 1.299,00 € bezahlt."),
    "da": ("Værelse 412 var fint, 2100 København.", "Vi betalte 1.299.000 kr den 12/11/2023."),
    "fr": ("La chambre 412 était bien.", "Payé 1 299 000 € le 2023-11-12 à 18h30."),
    "es": ("La habitación 412 estaba bien.", "Pagamos 1.299,00 € el 12-11-2023, iPhone 15."),
}


def made_up() -> list[MadeUp]:
    draw = random.Random(SEED)
    kinds = list(KINDS)
    made = []
    for number in range(REVIEWS):
        language = LANGUAGES[number % len(LANGUAGES)]
        # Every kind as often as the others in each language, and a second one at random.
        first = kinds[number // len(LANGUAGES) % len(kinds)]
        made.append(_review(draw, language, [first, draw.choice(kinds)]))
    return made


def _review(draw: random.Random, language: str, kinds: list[str]) -> MadeUp:
    sentences: list[tuple[str, str]] = [("", text) for text in PLAIN[language]]
    sentences += [(kind, draw.choice(SENTENCES[language][kind])) for kind in kinds]
    draw.shuffle(sentences)
    text, planted = "", []
    for kind, sentence in sentences:
        text += " " if text else ""
        if kind:
            before, _, behind = sentence.partition("{}")
            value = KINDS[kind](draw, language)
            start = len(text) + len(before)
            planted.append(Planted(kind, start, start + len(value)))
            sentence = f"{before}{value}{behind}"
        text += sentence
    return MadeUp(text, language, tuple(planted))


# -- one of each kind ------------------------------------------------------------------------


def _some(draw: random.Random, signs: str, count: int) -> str:
    return "".join(draw.choice(signs) for _ in range(count))


def _name(draw: random.Random, language: str) -> str:
    first, last = draw.choice(FIRST[language]), draw.choice(LAST[language])
    return draw.choice((first, f"{first} {last}"))


def _email(draw: random.Random, language: str) -> str:
    first = draw.choice(FIRST[language]).lower()
    host = draw.choice(("gmail.com", "posteo.de", "mail.dk", "orange.fr", "correo.es", "søby.dk"))
    tail = draw.choice(("", f".{_some(draw, ascii_lowercase, 5)}", f"+{_some(draw, digits, 2)}"))
    return f"{first}{tail}@{host}"


def _phone(draw: random.Random, language: str) -> str:
    def d(count: int) -> str:
        return _some(draw, digits, count)

    written = {
        "en": (f"(212) 55{d(1)}-{d(4)}", f"+44 20 79{d(2)} {d(4)}", f"0044 7700 9{d(5)}"),
        "de": (f"030 2{d(6)}", f"+49 (0)170 {d(7)}", f"0172/{d(7)}", f"0049-89-{d(7)}"),
        "da": (f"20 {d(2)} {d(2)} {d(2)}", f"+45 31{d(6)}", f"61{d(6)}"),
        "fr": (f"06 {d(2)} {d(2)} {d(2)} {d(2)}", f"+33 6 {d(2)} {d(2)} {d(2)} {d(2)}"),
        "es": (f"61{d(1)} {d(3)} {d(3)}", f"+34 6{d(8)}", f"91 {d(3)} {d(2)} {d(2)}"),
    }
    return draw.choice(written[language])


def _card(draw: random.Random, language: str) -> str:
    body = draw.choice(("4", "51", "37")) + _some(draw, digits, 13)
    body = body[:14] if body.startswith("37") else body[:15].ljust(15, "0")
    number = body + str(_luhn(body))
    if len(number) != 16:
        return number
    gap = draw.choice((" ", "-", ""))
    return gap.join(number[at : at + 4] for at in range(0, 16, 4))


def _luhn(body: str) -> int:
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return -total % 10


def _iban(draw: random.Random, language: str) -> str:
    country, length = {"en": ("GB", 18), "de": ("DE", 18), "da": ("DK", 14)}.get(
        language, ("FR", 23) if language == "fr" else ("ES", 20)
    )
    bank = _some(draw, ascii_uppercase, 4) if country == "GB" else _some(draw, digits, 4)
    body = bank + _some(draw, digits, length - 4)
    as_number = "".join(str(int(sign, 36)) for sign in f"{body}{country}00")
    iban = f"{country}{98 - int(as_number) % 97:02d}{body}"
    if draw.random() < 0.5:
        return iban
    return " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))


def _url(draw: random.Random, language: str) -> str:
    number = _some(draw, digits, 5)
    return draw.choice(
        (
            f"https://shop.example.com/orders/{number}?user={_some(draw, ascii_lowercase, 6)}",
            f"http://bilder.de/u/{_some(draw, ascii_lowercase, 8)}",
            f"www.trips.es/reserva?id={number}",
            f"fotos.dk/{_some(draw, ascii_lowercase, 6)}/{number}",
        )
    )


def _ip(draw: random.Random, language: str) -> str:
    if draw.random() < 0.3:
        return "2001:db8::" + ":".join(_some(draw, "123456789abcdef", 4) for _ in range(2))
    return ".".join(str(draw.randrange(1, 255)) for _ in range(4))


def _mac(draw: random.Random, language: str) -> str:
    pairs = [_some(draw, "0123456789ABCDEF", 2) for _ in range(6)]
    return draw.choice((":", "-")).join(pairs)


def _handle(draw: random.Random, language: str) -> str:
    return (
        f"@{_some(draw, ascii_lowercase, 6)}{draw.choice(('', '_', '.'))}{_some(draw, digits, 2)}"
    )


def _national_id(draw: random.Random, language: str) -> str:
    def d(count: int) -> str:
        return _some(draw, digits, count)

    letter = draw.choice("TRWAGMYFPDXBNJZSQVHLCKE")
    written = {
        "en": (f"{d(3)}-{d(2)}-{d(4)}", f"QQ {d(2)} {d(2)} {d(2)} C", f"AB{d(6)}D"),
        "de": (f"{d(2)} {d(3)} {d(3)} {d(3)}", f"L01X{d(2)}T4{d(2)}", d(11)),
        "da": (f"{d(6)}-{d(4)}", d(10), f"{d(6)} {d(4)}"),
        "fr": (f"1 {d(2)} {d(2)} {d(2)} {d(3)} {d(3)} {d(2)}", f"2{d(14)}"),
        "es": (f"{d(8)}{letter}", f"X{d(7)}{letter}", f"{d(8)}-{letter}"),
    }
    return draw.choice(written[language])


def _customer_number(draw: random.Random, language: str) -> str:
    return draw.choice(
        (
            f"KD-{_some(draw, digits, 4)}-{_some(draw, digits, 4)}",
            f"{_some(draw, ascii_uppercase, 3)}{_some(draw, digits, 6)}",
            _some(draw, digits, 8),
            f"{_some(draw, ascii_uppercase, 2)}/{_some(draw, digits, 5)}",
        )
    )


def _coordinates(draw: random.Random, language: str) -> str:
    north, east = draw.uniform(36, 60), draw.uniform(-10, 15)
    return f"{north:.5f}, {east:.5f}"


KINDS: dict[str, Callable[[random.Random, str], str]] = {
    "email": _email,
    "phone": _phone,
    "card": _card,
    "iban": _iban,
    "url": _url,
    "ip": _ip,
    "mac": _mac,
    "handle": _handle,
    "national id": _national_id,
    "customer number": _customer_number,
    "coordinates": _coordinates,
    "name": _name,
}
