"""Prompts for a small chat model: eight families, each a few wordings over its own subjects.

`tuning_prompts` are for whatever is chosen before an experiment (learning rates, ridges), `reported_prompts` for what
is reported. A prompt is a wording with a subject; every subject is used once, so that the two share wordings and no
subject.
"""

from __future__ import annotations

from itertools import cycle

FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "scenes": (
        ("Describe {} in one sentence.", "What does {} look like?", "Paint a picture of {} with words."),
        "a harbour at dawn; an empty classroom; a crowded night market; the inside of a clock; a beach after a "
        "storm; a train station at midnight; a garden in early spring; a kitchen during a family dinner; a forest "
        "fire seen from far away; an old library; a mountain village in winter; a hospital corridor; a football "
        "stadium before the match; the view from a lighthouse; a flooded street; a bakery early in the morning; a "
        "desert at noon; an attic full of boxes; a playground in the rain; a farmyard; a concert hall; a workshop "
        "of a carpenter; the deck of a ship; a field of sunflowers; an abandoned factory; a small airport; a cave "
        "with paintings; a city park on Sunday; a courtroom; the top of a skyscraper; a frozen lake; a street "
        "parade; a greenhouse; a castle on a hill; a bus in rush hour; a village well; a museum after closing time; "
        "a campsite at night; a river delta; a toy shop; a cathedral; a vineyard in autumn; a dentist's waiting "
        "room; a swimming pool in summer; a mine; a lakeside cabin; a fish market; a moonlit road; a wedding tent; "
        "a barber shop; a quarry; a rooftop terrace; a laundry room; a tram depot; a salt marsh; a chess club; a "
        "bridge in fog; a potter's studio; a gas station at the edge of town; a school canteen; a ski lift; a tea "
        "plantation; an orchard",
    ),
    "feelings": (
        ("How does it feel to {}?", "Write one sentence about someone who has to {}.", "Imagine you {}. What happens?"),
        "lose a close friend; win a race; move to a new city; forget an important name; fail an exam; hold a "
        "newborn baby; wait for a phone call; say goodbye at an airport; find an old letter; be late for a wedding; "
        "speak in front of a crowd; get a surprise gift; break a promise; finish a long book; sleep under the "
        "stars; hear bad news; come home after years; be blamed for a mistake; learn to swim; see snow for the "
        "first time; lose your keys; make a new friend; get lost in the woods; be chosen last; taste a favourite "
        "dish; forgive an enemy; watch a sunrise; be stuck in traffic; start a new job; lose a game; be praised by "
        "a teacher; miss the last train; plant a tree; quarrel with a neighbour; climb a mountain; be sick on "
        "holiday; receive an apology; give away a pet; get a bad haircut; find money on the street; be afraid of "
        "the dark; sing in a choir; drop a cake; wear a costume; live alone; be cheated; see an old photograph; "
        "paint a house; meet a hero; hear your own voice; lie awake at night; repair a bicycle; be forgotten; open "
        "a shop; leave a party early; ride a horse; burn the dinner; find a lost dog; grow old; hear thunder; win "
        "an argument; be invited",
    ),
    "advice": (
        ("Give one tip for {}.", "What should a beginner know about {}?", "What is the most common mistake in {}?"),
        "cooking rice; saving money; learning a language; running a marathon; growing tomatoes; writing a letter; "
        "sleeping better; packing a suitcase; buying a used car; training a puppy; studying for exams; painting a "
        "wall; making coffee; hosting guests; taking photographs; playing the piano; giving a speech; camping in "
        "the rain; fixing a leak; choosing a book; riding a bicycle in town; baking bread; working from home; "
        "making friends; cleaning windows; drawing faces; keeping bees; reading maps; mending clothes; playing "
        "chess; planning a holiday; cutting onions; caring for a cactus; negotiating a salary; telling jokes; "
        "swimming in the sea; sharpening knives; planting a hedge; babysitting; budgeting a wedding; writing "
        "poetry; driving in snow; making soup; learning to dance; selling on a market; grilling fish; meditating; "
        "arguing politely; choosing shoes; doing laundry; carving wood; catching trout; ironing shirts; hiking "
        "alone; organising a desk; juggling; brewing tea; sketching birds; tuning a guitar; stacking firewood; "
        "folding paper; pruning roses",
    ),
    "opinions": (
        ("What do you think about {}?", "Is {} a good thing?", "Say what people love or hate about {}."),
        "cold weather; school uniforms; horror films; fast food; living in the country; early mornings; video "
        "games; public transport; modern art; long meetings; reality shows; cats; working at night; spicy food; "
        "social media; loud music; small talk; homework; electric cars; crowded beaches; poetry; zoos; flying; "
        "queues; gossip; winter holidays; skyscrapers; vegetarian food; exams; open offices; karaoke; camping; "
        "tattoos; alarm clocks; advertising; antique furniture; football; umbrellas; selfies; online shopping; "
        "puns; museums; garlic; roller coasters; tea with milk; phone calls; dentists; rainy days; board games; "
        "taxes; opera; clowns; skateboards; convertible cars; silence; spiders; public speaking; new year's eve; "
        "pineapple on pizza; second-hand clothes; fireworks; hotels; handwriting",
    ),
    "facts": (
        ("Explain {} in simple words.", "What is {}?", "Tell a child about {}."),
        "gravity; photosynthesis; a volcano; inflation; the moon; electricity; a vaccine; an earthquake; democracy; "
        "a rainbow; the internet; a black hole; yeast; the heart; recycling; a compass; glass; a glacier; money; a "
        "library; tides; a comet; sleep; the alphabet; steel; a desert; the brain; a magnet; a fossil; music; a "
        "law; a shadow; oxygen; a bank; thunder; an island; a battery; the seasons; a calendar; friction; paper; a "
        "telescope; the equator; a virus; rust; an echo; a map; salt; wind; a dictionary; insurance; concrete; a "
        "bridge; soap; the ozone layer; a queen bee; a mirror; a lens; cotton; a tunnel; zero; sand; a passport",
    ),
    "stories": (
        ("Write the first sentence of a story about {}.", "Tell a very short story about {}.", "What did {} do next?"),
        "a lost astronaut; a talking dog; two sisters; a king without a crown; a tired robot; a thief in a museum; "
        "a sailor and a whale; an old clockmaker; a boy who could not lie; a haunted mill; a dragon who feared "
        "fire; a night nurse; a stolen painting; a teacher on Mars; an honest politician; a cat in a submarine; a "
        "blind painter; three wishes; a runaway train; a baker with a secret; a girl who collected shadows; a "
        "broken radio; a spy in love; a snowman in July; the last librarian; a lonely lighthouse; a postman in the "
        "jungle; a magician's rabbit; a family of foxes; a forgotten king; a ghost who lost its house; an inventor "
        "of umbrellas; a detective who slept all day; a mountain that walked; a pirate with glasses; a farmer on "
        "the moon; a violin without strings; a prince in a traffic jam; twins who swapped lives; a giant's garden; "
        "a mouse in a bank; an orphaned bear; a wedding in a lift; a city under water; a jealous mirror; the "
        "slowest runner; a gardener at war; a dishonest parrot; a soldier's letter; an empty circus; a mermaid in "
        "school; a wolf in the library; a chef without taste; a boy with a key; a queen in disguise; the wrong "
        "suitcase; a ship of cats; a comet hunter; a silent choir; an unlucky wizard; a locked door; a very small "
        "elephant; the man who sold clouds",
    ),
    "reviews": (
        ("Write a short review of {}.", "Would you recommend {}? Say why.", "Rate {} and explain in one sentence."),
        "a new pizza place; an old hotel by the sea; a noisy vacuum cleaner; a romantic comedy; a pair of hiking "
        "boots; a city bus tour; a cookbook; a cheap phone; a science fiction novel; a dentist; a coffee machine; a "
        "language app; a rock concert; a water park; a sleeping bag; a wool sweater; a gym; a night train; a board "
        "game; a bottle of wine; a laptop; a haircut; a birthday cake; an escape room; an umbrella; a garden chair; "
        "a history podcast; a school play; a bicycle lock; a perfume; a campsite; a documentary; a car rental; a "
        "pillow; a burger; a violin lesson; a ferry; a toaster; a mattress; a zoo; a thriller; an online course; a "
        "raincoat; a bakery; a keyboard; a taxi ride; a museum; a drum kit; a tent; a tea shop; a painting class; a "
        "steakhouse; a robot vacuum; a pair of headphones; a ski resort; a sushi bar; a wristwatch; a ballet; a "
        "frying pan; a travel guide; a smoothie; a puzzle; a desk lamp",
    ),
    "letters": (
        ("Write one line to {}.", "What would you say to {}?", "Begin a message to {}."),
        "a grandmother who lives far away; a noisy neighbour; your future self; a friend in hospital; a new "
        "colleague; the mayor; a teacher you liked; a landlord; an old rival; a cousin who got married; a customer "
        "who complained; a child who lost a tooth; a lost tourist; your first employer; a penfriend in Japan; a "
        "nurse; a referee; a famous singer; the person who stole your bike; a bus driver; a friend who moved away; "
        "the inventor of the wheel; a neighbour's cat; a shy student; an angry guest; a newspaper editor; your "
        "younger brother; a retired captain; a plumber who came late; the winner of a contest; a friend you have "
        "disappointed; a librarian; an astronaut; a team that lost; a bride; a dentist; the owner of a lost wallet; "
        "a farmer; a chess partner; an aunt who sends socks; a sleepy guard; a lucky gambler; a firefighter; a lazy "
        "roommate; a tailor; a judge; an upset child; a mountain guide; a poet; a waiter; the first person on Mars; "
        "a forgetful uncle; a babysitter; a gardener; the captain of a ferry; a street musician; a jealous friend; "
        "a stranger on a train; a baker; your goalkeeper; a beekeeper; a weather forecaster",
    ),
}
TUNING_EACH = 12  # subjects of each family, the last ones; the first REPORTED_EACH are for what is reported
REPORTED_EACH = 50


def prompts(family: str) -> list[str]:
    """All prompts of a family, in order: wordings in turn, a subject each."""
    wordings, subjects = FAMILIES[family]
    each = [subject.strip() for subject in subjects.split(";")]
    return [wording.format(subject) for wording, subject in zip(cycle(wordings), each, strict=False)]


def tuning_prompts() -> list[str]:
    """TUNING_EACH prompts of each family."""
    return [prompt for family in FAMILIES for prompt in prompts(family)[REPORTED_EACH : REPORTED_EACH + TUNING_EACH]]


def reported_prompts() -> list[str]:
    """REPORTED_EACH prompts of each family."""
    return [prompt for family in FAMILIES for prompt in prompts(family)[:REPORTED_EACH]]
