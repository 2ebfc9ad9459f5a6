"""Names, places, products and texts for the demo's made-up people. Data only; every value is invented or reserved.

Telephone numbers are from ranges that regulators reserve for fiction (NANPA 555-01XX, Ofcom 07700 900XXX, Arcep
06 39 98 XX XX); e-mail domains are those of RFC 2606.
"""

from typing import Final, NamedTuple


class Place(NamedTuple):
    """A city and its country (ISO 3166), and how many customers live there relative to the others."""

    city: str
    country: str
    weight: int


class Product(NamedTuple):
    """One article. `price` in cents of the base currency."""

    id: str
    name: str
    category: str
    brand: str
    price: int


def _words(text: str) -> tuple[str, ...]:
    """Split at spaces; "_" stands for a space within a name."""
    return tuple(word.replace("_", " ") for word in text.split())


GIVEN_NAMES: Final = _words("""
    Ada Aïcha Alejandro Amélie Ananya Anders Andréa Ángel Anja António Arjun Astrid Aurélie Ayşe Beatriz Benoît
    Björn Bożena Brigid Camille Carlos Çağla Chiara Chloé Cian Dagmar Daniel Désirée Dmitri Dolores Edith Eëmeli
    Elif Eloïse Emeka Emma Émile Esperança Fatima Félix Fiona Frédéric Gabriela George Gisèle Grace Günther Hana
    Harriet Héctor Hélène Hiroshi Ibrahim Ines Inès Ioana Isaac Ivana Jaako Jakub James Jasmin Jérôme Joana João
    Jörg José Julia Jürgen Kamila Kateřina Keiko Kofi Kwame Lars Laura Léa Liam Līga Linh Lucía Ludmila Łukasz
    Magnus Maëlle Małgorzata Marek María Marta Mateo Maxime Mei Mercedes Miguel Milena Mónica Moussa Müge Nadia
    Naoko Nia Niamh Noémie Nuno Oisín Olena Olivia Omar Óscar Otto Pádraig Paolo Paula Pelle Petra Priya Rachel
    Rafael Raúl Renée Robert Rosalía Ruth Samir Sanjay Saoirse Sebastián Selma Seán Sinéad Sofía Søren Stéphane
    Sunita Svetlana Tadeusz Tamar Tanvi Teresa Théo Thomas Tiago Tomáš Uma Urszula Valérie Víctor Vivek Wanjiku
    Wei Xavier Yasmin Yuki Yusuf Zainab Zoë Zofia Žaneta
""")
FAMILY_NAMES: Final = _words("""
    Abadi Acheampong Adeyemi Aguirre Åkesson Almeida Álvarez Andersson Antunes Araújo Bakker Balogun Baptiste
    Barański Bauer Bélanger Bergström Bianchi Blanchard Bošković Brandão Brennan Byrne Calderón Castañeda Černý
    Chatterjee Chen Clarke Conceição Côté Cruz Dąbrowski Davies Deschênes Díaz Diallo Dvořák Eriksen Espinoza
    Étienne Evans Farouk Fernández Fitzgerald Fonseca Fournier François García Gauthier Gómez Gonçalves Grießer
    Guðmundsson Gupta Gutiérrez Haddad Hansen Hernández Hofmann Horváth Hughes Ibáñez Iglesias Iyer Jäger
    Jankowski Jiménez Johansson Kaplan Kaya Kessler Khan Kim Kovač Kowalczyk Kozłowska Krüger Kumar Lacroix
    Lefèvre Lindqvist López Lundgren MacKenzie Maïga Marchand Martínez Mbeki Méndez Meyer Mitchell Mohamed
    Molnár Morales Moreau Müller Muñoz Murphy Nakamura Ñíguez Nguyen Nilsen Novák Núñez O'Brien O'Connor
    Ó_Súilleabháin Okafor Öztürk Østergaard Owusu Papadakis Patel Peña Pérez Petrović Pham Pinto Popescu Quispe
    Ramírez Renaud Ribeiro Rodríguez Romano Rossi Šarić Sánchez Santos Sato Schäfer Schröder Sharma Silva Singh
    Sørensen Strömberg Suárez Świątek Szabó Takács Tanaka Thibault Torres Tremblay Vásquez Vega Virtanen Walsh
    Weiß Williams Wójcik Yamamoto Yılmaz Young Zając Zimmermann Zürcher
""")

PLACES: Final = (
    Place("Besançon", "FR", 5), Place("Bordeaux", "FR", 8), Place("Nîmes", "FR", 5),
    Place("Saint-Étienne", "FR", 6), Place("Leeds", "GB", 9), Place("Bristol", "GB", 9),
    Place("Caernarfon", "GB", 2), Place("Dundee", "GB", 4), Place("Oakland", "US", 12),
    Place("Saint Paul", "US", 9), Place("Cañon City", "US", 3), Place("Baton Rouge", "US", 6),
    Place("San José", "US", 10), Place("Zürich", "CH", 4), Place("Málaga", "ES", 4),
    Place("Kraków", "PL", 3), Place("Łódź", "PL", 2), Place("Düsseldorf", "DE", 4),
    Place("Göteborg", "SE", 3), Place("Århus", "DK", 2), Place("Coimbra", "PT", 2),
    Place("Montréal", "CA", 5), Place("İzmir", "TR", 2), Place("Reykjavík", "IS", 1),
)  # fmt: skip

AREA_CODES: Final = _words("""
    205 208 212 213 225 253 303 312 336 402 404 415 503 504 505 510 512 602 608 612 615 617 619 651 702 703 716
    717 719 801 802 804 808 818 901 907 914 917 919 971
""")
"""Each has the 100 numbers 555-0100 to 555-0199."""

EMAIL_DOMAINS: Final = ("example.com", "example.org", "example.net", "post.example", "inbox.example")

TILLS: Final = ("till-1", "till-2", "till-3", "till-4")

_GOODS: Final = {
    "Kitchen": (
        "Cast-iron pan:4900 Chef's knife:6400 Pepper mill:2750 Mixing bowl:1890 Espresso cups:2400 Salad spinner:1990 "
        "Bread basket:1650 Copper kettle:5600 Oven gloves:1240 Café press:3290 Chopping board:2890 Tea strainer:690"
    ),
    "Garden": (
        "Watering can:2190 Pruning shears:3150 Seed box:1480 Terracotta pot:1290 Garden gloves:990 Hand trowel:1150 "
        "Bird feeder:2350 Hammock:8900 Fire bowl:12900 Herb planter:3400 Kneeling pad:1390 Lantern:2600"
    ),
    "Home": (
        "Wool blanket:7900 Linen cushion:2950 Beeswax candle:1150 Wall clock:4500 Picture frame:1750 Reading lamp:6900 "
        "Door mat:2400 Laundry basket:3350 Curtain pair:5400 Storage crate:1990 Vase:2790 Coat hooks:1890"
    ),
    "Bath": (
        "Olive soap:590 Bath towel:2490 Bath salts:1190 Wooden brush:990 Shower mat:1690 Cotton robe:6200 "
        "Hand cream:890 Soap dish:790 Face cloths:1090 Bath caddy:2990 Pumice:450 Toiletry bag:2350"
    ),
    "Pantry": (
        "Olive oil:1450 Fig jam:650 Sea salt:480 Acacia honey:890 Mustard trio:990 Oolong tea:1250 "
        "Almond nougat:780 Dried porcini:1190 Espresso beans:1390 Crème caramel mix:560 "
        "Piment d'Espelette:870 Granola:720"
    ),
}
_BRANDS: Final = ("Møller & Søn", "Atelier Lumière", "Hearthside", "Casa Peña", "Grünwald")


def _products() -> tuple[Product, ...]:
    made = []
    for place, (category, text) in enumerate(_GOODS.items()):
        for number, part in enumerate(_split_goods(text)):
            name, price = part.rsplit(":", 1)
            brand = _BRANDS[(place + number) % len(_BRANDS)]
            made.append(Product(f"{category[:2].upper()}-{number + 1:02d}", name, category, brand, int(price)))
    return tuple(made)


def _split_goods(text: str) -> list[str]:
    """Parse "name:price" entries; a space after a number ends an entry."""
    parts, words = [], []
    for word in text.split(" "):
        words.append(word)
        if ":" in word:
            parts.append(" ".join(words))
            words = []
    return parts


PRODUCTS: Final = _products()
CATEGORIES: Final = tuple(_GOODS)

CAMPAIGNS: Final = (
    "New in the shop", "Member days", "Garden season", "Summer table", "Back from holidays", "Autumn evenings",
    "Gift ideas", "Winter sale", "Spring cleaning", "Picnic time",
)  # fmt: skip
CALL_TOPICS: Final = ("delivery", "opening_hours", "product_question", "return", "invoice", "loyalty_points")
COMPLAINT_TOPICS: Final = ("late_delivery", "damaged_item", "wrong_item", "rude_service", "billing_error", "quality")
COMPLAINT_TEXTS: Final = {
    "late_delivery": "The parcel came two weeks late and nobody told me why.",
    "damaged_item": "It arrived broken, and so did the replacement.",
    "wrong_item": "I ordered two and got one, in another colour.",
    "rude_service": "I was left waiting at the till and then sent away.",
    "billing_error": "I was charged twice and still wait for the money.",
    "quality": "It fell apart after three weeks of normal use.",
}
