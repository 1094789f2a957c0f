"""English words that are no things, by what they do in a sentence.

Closed classes are complete as far as descriptions of pictures use them; verbs and adjectives are those that
vision-language models write, the rest is told by endings.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Begin a noun phrase and are no part of a name.
SINGULAR_DETERMINERS = _words('a an one this that each every another either')
NUMBERS = _words(
    """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds
    thousand thousands million millions dozen dozens zero first second third fourth fifth sixth last ii iii
    iv vi vii viii ix
    """
)
DETERMINERS = (
    SINGULAR_DETERMINERS
    | NUMBERS
    | _words(
        """
        the these those some any all both half many much more most few fewer several numerous multiple various
        enough lots plenty such what which whose his her hers its their theirs my mine our ours your yours
        """
    )
)
# Say that something is there, not what it is.
EMPTY_MODIFIERS = _words(
    """
    other others different same similar main visible noticeable notable noteworthy discernible identifiable
    recognizable certain possible potential additional extra further single individual separate distinct
    specific particular prominent primary secondary major minor important entire whole overall general
    common typical detected depicted displayed listed mentioned identified featured shown pictured seen
    following said own apparent actual present
    """
)
# In front of a thing they say where it is; alone they are places of the picture.
POSITIONS = _words(
    """
    left right top bottom upper lower middle center centre central background foreground far near left-hand
    right-hand leftmost rightmost topmost bottommost nearest farthest front-left front-right bottom-left
    bottom-right top-left top-right upper-left upper-right lower-left lower-right
    """
)
PRONOUNS = _words(
    """
    i you he she it we they me him us them who whom myself yourself himself herself itself ourselves
    themselves someone somebody something anyone anybody anything everyone everybody everything nobody
    nothing none ones whoever whatever
    """
)
MODALS = _words('to could may might will would shall should must cannot do does did let lets not also')
COPULAS = _words("is was looks appears seems feels remains becomes it's that's")
# What ends a negated list: not these.
COORDINATORS = _words('or nor and')
# What stands before these is no verb.
NEVER_AFTER_A_VERB = COORDINATORS | _words('is are was were has have had can could will would may might')
PREPOSITIONS = _words(
    """
    of in on at by to from with into onto upon over under above below beneath underneath beside besides
    between among amongst amid amidst behind before after around round about across along alongside against
    near nearby next toward towards through throughout during within inside outside outdoors indoors off out
    up down past via per as for than like unlike until till since despite opposite beyond atop aboard ahead
    away apart together close closer closeup close-up adjacent overhead upstairs downstairs upright sideways
    forward backward forwards backwards aside
    """
)
_CONJUNCTIONS = _words(
    """
    and or but nor so yet if because while whereas although though when where why how whether then thus
    hence however therefore moreover furthermore also too plus etc eg ie vs versus including
    """
)
_ADVERBS = _words(
    """
    there here very quite rather almost just only even still already always never ever often sometimes now
    again perhaps maybe well not far away back else instead once twice somewhat somewhere anywhere
    everywhere elsewhere further ahead alone both altogether indeed otherwise likewise meanwhile afterwards
    yes ok okay sure please sorry hello hi thanks thank welcome no
    """
)
_VERBS = _words(
    """
    am is are was were be been being isn aren has have had having do does did done doing could may might
    will would shall should must cannot let lets gets get got gotten show shows showed shown depict depicts
    contain contains include includes feature features capture captures display displays illustrate
    illustrates present presents portray portrays describe describes represent represents suggest suggests
    indicate indicates appear appears appeared seem seems seemed look looks looked feel feels felt remain
    remains become becomes became see sees saw seen find finds found identify notice observe observes sit
    sits sat stands stood lie lies lay laid lain lean leans hang hangs hung rest rests hold holds held wear
    wears wore worn carry carries ride rides rode ridden walks run runs ran eat eats ate eaten drinks drank
    swim swims swam sleep sleeps slept fly flies flew flown throw throws threw thrown catch catches caught
    hit hits kick kicks jump jumps climb climbs play plays watches reach reaches reads read says say said
    write writes wrote written speak speaks spoke talk talks smile smiles laugh laughs stare stares gaze
    gazes face faces surround surrounds cover covers fill fills line lines add adds added create creates
    created make makes made give gives gave given take takes took taken bring brings brought provide
    provides use uses used enjoy enjoys grow grows grew grown keep keeps kept put puts set sets seat seats
    built come comes came go goes went gone know known think thought believe want wants need needs try tries
    serve serves served consist consists comprise comprises belong belongs occupy occupies dominate
    dominates extend extends overlook overlooks accompany accompanies complement complements enhance
    enhances emphasize convey conveys evoke evokes reflect reflects blend blends allow allows lead leads led
    follow follows begin begins began start starts turn turns open opens tied lit torn bent woven hidden
    spread split cut shut burnt blown drawn driven stuck struck swept wound bound fed spent located situated
    named called labeled labelled titled based lined fall falls fell graze grazes cheer cheers float floats
    hover hovers glow glows shine shines rise rises loom looms flow flows approach approaches pull pulls
    push pushes perform performs prepare prepares pour pours leap leaps gallop gallops chase chases stretch
    stretches wait waits surfs
    """
)
# Nouns too: verbs after a plural or a pronoun ("people watch the game").
BASE_VERBS = _words(
    """
    stand watch park walk drink work gather wait move pose face cover line ride play surf ski skate paint
    cook shop fish hike camp relax chat dance graze perch pass use
    """
)
# Words of both lists: verbs there, but things after a determiner or a modifier ("a book cover", "two seats").
NOUN_VERBS = _words(
    'face faces cover covers line lines seat seats set sets drinks watches cut rest plays lead turn'
)
STOPS = (PRONOUNS | MODALS | COPULAS | PREPOSITIONS | _CONJUNCTIONS | _ADVERBS | _VERBS) - NOUN_VERBS
NEGATIONS = _words(
    'no not without neither nor never cannot lacking lacks lack devoid absence absent instead rather '
    'excluding'
)
# After these words, or before those, "can" is a verb and no tin.
BEFORE_CAN = PRONOUNS | _words('that which there')
AFTER_CAN = _words(
    'be also not only see have do get find make take identify describe provide help hear spot tell observe'
)
# "not only", "not limited to": no negation.
AFFIRMATIVE_AFTER_NOT = _words('only limited just necessarily')

# Of the picture or of its mood, not in it. Singular.
SCENE = _words(
    """
    image picture photo photograph photography snapshot shot scene scenery background foreground midground
    setting surrounding surroundings environment atmosphere ambiance ambience mood vibe tone left right side
    view front middle center centre back rear top bottom edge corner end part portion section segment area
    region space place spot location position distance direction vicinity proximity way number amount
    quantity lot variety range series group set pair collection assortment array bunch kind type sort style
    design detail element feature aspect component focus perspective angle composition description caption
    list listing breakdown answer question example note summary category class label bbox coordinate score
    confidence detection ref quad name count json color colour hue shade size texture pattern appearance
    look feeling sense impression emotion beauty effect contrast presence addition fact theme topic content
    context information viewer observer moment time day night morning evening afternoon daytime nighttime
    sunset sunrise weather season sunlight daylight lighting illumination visibility activity action motion
    movement interaction conversation event occasion walk ride rest stroll glimpse touch use purpose
    variation arrangement combination mix mixture lack level total majority language ai id trick thrill turn
    tennis golf cricket hockey rugby badminton game match sport close-up closeup
    """
)
# Things, but which? A name only with a word in front of it ("metal object").
GENERIC = _words(
    'object item thing shape instance stuff form material equipment accessory case '
    'metal plastic leather fabric concrete steel wood'
)
# "a ... of": how much, not what.
COLLECTIVES = _words(
    """
    group pair bunch set number row line stack pile heap collection couple variety lot series crowd herd
    flock pack swarm school team cluster clump assortment range array selection mix mixture combination
    piece bit part portion slice sheet kind type sort form list quantity amount handful majority rest half
    image picture photo photograph view shot scene closeup close-up loaf pride litter batch trio duo patch
    strip total breakdown depiction representation
    """
)
# "a ... of": one thing with what is in it; the name keeps both ("bottle of water").
CONTAINERS = _words(
    """
    bottle cup glass mug bowl plate platter basket box bag can jar jug pitcher carton pot vase bucket barrel
    crate tray tin tube packet package carafe tub bouquet pint pan dish roll bar
    """
)
# End like one of the words above and are things all the same.
KEPT = _words(
    'tank-top crop-top halter-top flower-arrangement solar-array television-set tv-set tea-set chess-set '
    'drum-set swing-set video-game board-game'
)
NOT_THINGS = _words('language-model hand-side key-object key-item')

COLOURS = _words(
    """
    red green blue yellow orange purple pink brown black white grey gray cyan magenta lime teal navy maroon
    olive beige turquoise violet indigo gold golden silver tan cream ivory crimson scarlet khaki lavender
    burgundy charcoal aqua amber coral mint mustard peach plum rose salmon rust bronze copper lilac mauve
    reddish greenish bluish yellowish brownish greyish grayish pinkish whitish blackish purplish orangish
    multicolored multicoloured multi-colored multi-coloured
    """
)
# Also things, where nothing follows them.
NOUN_COLOURS = _words(
    'orange lime olive rose peach plum salmon mint coral gold silver cream lavender mustard lilac'
)
# Drop out together with the colour behind them.
SHADES = _words('light dark bright pale deep vivid dull pastel neon')
ADJECTIVES = _words(
    """
    big small large little tiny huge giant enormous massive vast tall short long high low wide narrow thick
    thin broad deep shallow heavy lightweight slim slender fat skinny chubby full-size mini old new young
    elderly ancient antique vintage modern contemporary traditional classic rustic fresh middle-aged
    teenage dark bright pale vivid dull pastel neon shiny glossy matte sparkly transparent translucent
    opaque clear blurry cloudy sunny rainy snowy foggy misty windy stormy overcast cold hot warm cool chilly
    wet dry damp dirty dusty clean messy tidy neat cluttered empty full open closed half-open broken intact
    hard soft rough smooth fluffy fuzzy furry hairy woolly curly straight wavy flat round circular
    rectangular triangular spherical cylindrical conical hexagonal octagonal pointy sharp blunt sloping
    steep wooden metallic woven woolen plain floral plaid checkered striped dotted spotted patterned
    textured colorful colourful monochrome monochromatic vibrant ornate elegant fancy simple intricate
    decorative beautiful pretty lovely cute adorable handsome ugly nice good great bad fine perfect
    attractive stunning breathtaking picturesque scenic idyllic majestic serene calm peaceful quiet tranquil
    relaxed cozy cosy comfortable inviting lively busy bustling crowded lush verdant happy sad angry
    friendly playful joyful cheerful content casual formal informal professional festive romantic dramatic
    moody mysterious whimsical surreal realistic abstract artistic creative natural artificial fake real
    urban rural suburban domestic wild tropical exotic foreign local public private sturdy fragile delicate
    strong weak powerful tasty delicious ripe raw juicy healthy sweet sour spicy crispy creamy available
    likely unlikely able unable unclear uncertain evident obvious typical usual unusual unique rare special
    strange odd interesting familiar popular famous basic essential necessary ready safe dangerous active
    inactive alive dead asleep awake barefoot naked nude bare shirtless bald blond blonde brunette larger
    smaller bigger taller shorter longer higher lower wider closer older younger newer brighter darker
    largest smallest biggest tallest shortest longest highest lowest widest closest oldest youngest
    symmetrical asymmetrical horizontal vertical diagonal parallel scattered partial complete fully outdoor
    indoor male female human-like alike aerial daily early late american asian european african japanese
    chinese french italian german english british indian mexican
    """
)
NOUN_ENDINGS_LIKE_ADJECTIVES = _words(
    """
    table cable vegetable turntable stable bible collectible convertible timetable handful
    """
)

# End in -ing and are things.
ING_NOUNS = _words(
    """
    building painting drawing ceiling ring king string wing earring sling railing clothing swing spring
    awning icing frosting pudding dressing stocking sibling duckling crossing paneling panelling bedding
    lettering flooring siding topping stuffing seating herring wiring bling ping fencing carving etching
    dumpling seedling fledgling gosling hatchling lightning lining molding moulding netting padding piping
    plumbing roofing rigging scaffolding shelving upholstering viking wedding landing offering marking
    coating legging outbuilding housing filling yearling sapling thing furnishing tiling decking keyring
    hamstring shoestring drawstring mooring
    """
)
# In front of these -ing words belong to the name; elsewhere they say what somebody does.
ING_COMPOUNDS = _words(
    """
    dining-table dining-room dining-chair dining-hall dining-set living-room parking-meter parking-lot
    parking-garage parking-sign parking-space parking-spot parking-ticket fishing-rod fishing-pole
    fishing-boat fishing-net fishing-line fishing-hook rocking-chair rocking-horse rolling-pin
    sewing-machine vending-machine washing-machine walking-stick walking-cane swimming-pool swimming-trunk
    swimming-cap cutting-board chopping-board ironing-board diving-board steering-wheel sleeping-bag
    folding-chair folding-table shopping-bag shopping-cart shopping-basket shopping-mall boxing-glove
    boxing-ring bowling-ball bowling-pin bowling-alley frying-pan baking-sheet baking-pan baking-dish
    baking-tray knitting-needle mixing-bowl measuring-cup measuring-tape measuring-spoon measuring-stick
    curling-iron watering-can racing-car racing-bike training-wheel drinking-glass drinking-fountain
    drinking-straw hiking-boot hiking-pole running-shoe riding-boot riding-helmet skating-rink cooking-pot
    cooking-utensil cooking-oil serving-dish serving-tray serving-spoon serving-platter carving-knife
    sailing-boat sailing-ship rowing-boat playing-card playing-field scrubbing-brush shaving-cream
    shaving-brush chewing-gum cleansing-agent writing-desk reading-lamp reading-glasses hanging-basket
    hanging-lamp flying-disc climbing-wall climbing-rope filing-cabinet changing-table coloring-book
    coloring-material colouring-book charging-station charging-cable bathing-suit wrapping-paper
    printing-press jumping-rope skipping-rope whipping-cream gaming-console gaming-chair moving-van
    landing-gear
    """
)
# End in -ed and are things.
ED_NOUNS = _words(
    'bed shed sled seed weed reed breed tweed speed feed deed sunbed flowerbed hundred seabed bobsled steed '
    'dogsled seaweed moped bloodshed watershed daybed waterbed biped med'
)
# End in -ly and are no adverbs.
LY_WORDS = _words(
    """
    butterfly fly dragonfly firefly housefly jelly lily belly family assembly bully trolley curly woolly
    friendly elderly lovely ugly holy doily grizzly holly rally dolly gully supply bubbly cuddly hilly
    potbelly underbelly ally wooly lonely lively chilly silly smelly wrinkly waterlily
    """
)
