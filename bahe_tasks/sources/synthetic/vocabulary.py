"""The words of the synthetic log: what topics are about, and the frames that titles and behaviors are made in.

Each topic is told by many different words, so that a text encoder can tell that two texts share a topic though they
share no word. The frames are the same for every topic and carry no signal.
"""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """What a topic is about: `things` (nouns), `doings` (verb phrases) and `places` (where it is bought or done)."""

    name: str
    things: tuple[str, ...]
    doings: tuple[str, ...]
    places: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(","))


def _topic(name: str, things: str, doings: str, places: str) -> Topic:
    return Topic(name, _words(things), _words(doings), _words(places))


TOPICS: tuple[Topic, ...] = (
    _topic(
        "food",
        """ramen noodles, sourdough bread, olive oil, tomato soup, roast chicken, chocolate cake, dumplings, cheese board,
        fresh pasta, curry paste, takeout dinner, breakfast pancakes, grilled salmon, pizza dough, vegetable stew,
        espresso beans, sushi platter, barbecue ribs, apple pie, street tacos""",
        "bake bread, cook rice, fry an egg, season a steak, order takeout, make a salad dressing",
        "noodle bar, corner bakery, steakhouse, farmers market, coffee shop, pizzeria",
    ),
    _topic(
        "travel",
        """flight tickets, hotel booking, carry-on suitcase, train pass, beach resort, city break, airport transfer,
        travel visa, island cruise, hostel bed, passport renewal, guided tour, rental villa, jet lag, ferry crossing,
        sightseeing map, boarding pass, mountain lodge, travel insurance, road trip route""",
        "book a hotel, pack a suitcase, change planes, find a cheap flight, plan a holiday abroad, apply for a visa",
        "airport lounge, travel agency, seaside hotel, railway station, tourist office, airline desk",
    ),
    _topic(
        "finance",
        """savings account, mortgage rate, index fund, credit card, tax return, pension plan, stock dividend,
        personal loan, bank transfer, household budget, government bonds, interest payment, exchange rate,
        life insurance, credit score, investment portfolio, overdraft fee, currency market, inheritance tax, payslip""",
        "open a bank account, invest savings, pay off debt, file taxes, compare loans, plan for retirement",
        "bank branch, brokerage, accountant, tax office, insurance broker, stock exchange",
    ),
    _topic(
        "football",
        """league match, penalty kick, goalkeeper gloves, season ticket, transfer rumour, world cup final, team jersey,
        corner kick, referee decision, stadium seats, training drills, striker goals, derby game, match highlights,
        offside rule, championship trophy, half-time score, football boots, midfield tactics, fan scarf""",
        "watch the match, score a goal, follow the league, train a team, take a free kick, buy match tickets",
        "football stadium, sports bar, fan shop, training ground, club house, ticket office",
    ),
    _topic(
        "gardening",
        """tomato seedlings, rose bushes, compost heap, lawn mower, garden hose, tulip bulbs, herb planter, greenhouse,
        pruning shears, raised beds, potting soil, hedge trimmer, fruit trees, slug control, wildflower meadow,
        flower pots, watering can, rain barrel, orchid care, weed killer""",
        "plant bulbs, prune roses, mow the lawn, grow vegetables, repot a plant, make compost",
        "garden centre, plant nursery, florist, allotment, botanical garden, seed shop",
    ),
    _topic(
        "video games",
        """game console, strategy game, racing simulator, gaming headset, puzzle platformer, online shooter, boss fight,
        game controller, role-playing quest, esports tournament, pixel art adventure, loot box, multiplayer server,
        speedrun record, graphics card, arcade cabinet, open world map, character build, expansion pack, virtual reality""",
        "beat the final boss, level up a character, stream gameplay, join a guild, set up a console, unlock a skin",
        "game store, arcade hall, esports arena, online game shop, console repair, gaming cafe",
    ),
    _topic(
        "fashion",
        """leather boots, silk dress, denim jacket, wool coat, summer sandals, designer handbag, linen shirt, evening gown,
        running tights, cashmere sweater, tailored suit, pleated skirt, silver earrings, straw hat, ankle socks,
        vintage blouse, trench coat, high heels, winter scarf, bridal outfit""",
        "match an outfit, iron a shirt, find the right size, style a scarf, hem trousers, care for leather shoes",
        "fashion boutique, shoe shop, tailor, department store, vintage clothes shop, jeweller",
    ),
    _topic(
        "fitness",
        """yoga mat, dumbbell set, marathon plan, gym membership, protein shake, treadmill, pilates class, kettlebell,
        stretching routine, rowing machine, push-up challenge, running shoes, heart rate monitor, spin class, muscle soreness,
        weight loss plan, core exercises, personal trainer, interval workout, resistance bands""",
        "run a marathon, lift weights, stretch tight muscles, lose belly fat, build stamina, do a pull-up",
        "gym, yoga studio, running track, swimming pool, climbing hall, fitness centre",
    ),
    _topic(
        "parenting",
        """baby stroller, diaper pack, bedtime story, toddler tantrum, school lunch box, baby monitor, nursery wallpaper,
        breast pump, teething ring, kindergarten place, wooden toys, maternity leave, birthday party for kids, car seat for infants,
        potty training, homework help, baby formula, babysitter, playground swing, sleep training""",
        "calm a crying baby, choose a school, bathe a newborn, get a toddler to sleep, raise twins, find a babysitter",
        "toy shop, kindergarten, children's clinic, playground, baby store, primary school",
    ),
    _topic(
        "cars",
        """electric car, engine oil, winter tyres, brake pads, used sedan, car lease, spark plugs, hybrid engine, diesel filter,
        parking sensor, roof rack, gearbox repair, charging station, car wash, windscreen wiper, sports coupe, pickup truck,
        driving licence, motor insurance, dashboard camera""",
        "change a tyre, sell a used car, jump-start a battery, pass the driving test, charge an electric car, fix a dent",
        "car dealer, petrol station, repair garage, tyre shop, car park, driving school",
    ),
    _topic(
        "pets",
        """dog food, cat litter, puppy training, aquarium filter, leash and collar, hamster cage, flea treatment, kitten toys,
        vet appointment, parrot perch, dog bed, scratching post, rabbit hutch, pet insurance, fish tank, grooming brush,
        horse saddle, chew bones, cat flap, rescue dog""",
        "train a puppy, bathe a dog, stop a cat scratching, feed a hamster, adopt a kitten, walk two dogs",
        "pet shop, veterinary clinic, animal shelter, dog park, grooming salon, riding stable",
    ),
    _topic(
        "music",
        """acoustic guitar, concert tickets, vinyl records, piano lessons, jazz quartet, drum kit, choir rehearsal, studio microphone,
        violin strings, opera evening, song lyrics, festival line-up, synthesizer, string quartet, bass amplifier, sheet music,
        hip hop album, noise-cancelling headphones, orchestra season, karaoke night""",
        "tune a guitar, learn the piano, write a song, mix a track, read sheet music, sing in a choir",
        "concert hall, record store, music school, jazz club, opera house, instrument maker",
    ),
)

TITLE_FRAMES: tuple[str, ...] = (
    "{adjective} {thing} and {other}",
    "a beginner's guide to {thing}",
    "how to {doing}: {thing} explained",
    "{thing} now on offer at the {place}",
    "ten questions about {thing}",
    "{adjective} {thing} from the {place}",
    "everything you need to {doing}",
    "{thing} or {other}: which is better?",
    "why everyone talks about {thing}",
    "the {adjective} way to {doing}",
)

BEHAVIOR_FRAMES: dict[str, tuple[str, ...]] = {
    "searches": (
        "{thing}",
        "best {thing}",
        "how to {doing}",
        "{adjective} {thing}",
        "{thing} near me",
        "{thing} price",
    ),
    "bills": ("paid at the {place}", "bought {thing}", "{place}: {thing}", "monthly payment {thing}"),
    "visits": ("visited the {place}", "read about {thing}", "watched a video: how to {doing}"),
}

ADJECTIVES: tuple[str, ...] = _words(
    "affordable, simple, new, classic, small, popular, second-hand, premium, reliable, local, unusual, modern, big, perfect"
)
