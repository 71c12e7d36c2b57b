"""Abuse without the words that give it away (short forms, other spellings, hints and coded hate),
mild words that are no abuse, and texts of one form that are either by what stands in them. All
written for this project, none taken from data.

Kept back as in prompts.py: every fourth template, and every fourth filler of a slot, so that a row
of the split `check` shares neither with one of `train`. `rows()` gives them to training.
"""

import random

from contrast import BEASTS, GROUPS, INSULTS, NASTY
from prompts import SLOTS as PROMPTED
from prompts import kept_back, of_templates

# One form for both: of {x}, people make it toxic and the rest does not.
PEOPLE = GROUPS + ["jewish people", "those foreigners", "gays", "feminists", "blacks", "the poor", "roma", "people like her", "single mothers"]
THINGS = [
    "cockroaches", "mosquitoes", "wasps", "rats in the cellar", "weeds", "slugs", "bed bugs", "fruit flies", "ants", "moles in my lawn", "head lice", "ticks",
    "spam mails", "pop-up ads", "zombie processes", "memory leaks", "merge conflicts", "mould spots", "dandelions", "goblins in level three", "robocalls", "pigeons on the roof",
    "potholes", "fleas", "flaky tests", "moths in the flour", "orcs", "duplicate rows", "typos", "viruses on my laptop", "cookie banners", "nettles",
]
EITHER = {
    "wanted_gone": [
        "Damned {x}, kill them all.", "{x} everywhere, I want them dead.", "The only good {x} are dead {x}.", "How do I get rid of {x} for good?",
        "Exterminate {x}, every last one of them.", "I hate {x} so much, they make me sick.", "{x} must be wiped out.", "I can't stand {x} any more.",
        "bloody {x}, they ruin everything", "Where do all these {x} come from? Nobody wants them here.", "We have to eradicate {x} before they multiply.", "Is there a poison that works on {x}?",
        "{x} are a plague, burn them", "We killed hundreds of {x} last summer and it felt great.", "Stop {x} from coming into our houses.", "{x} again! Gas them, spray them, whatever, just get them out.",
        "{x} breed like crazy, something must be done.", "What is the fastest way to destroy {x}?", "Let's crush {x} together this weekend.", "{x} are disgusting and they get into everything.",
        "I won't rest until {x} are gone from this place.", "{x} are the worst, who is with me?", "No mercy for {x}.", "There should be a bounty on {x}.",
    ],
    "looked_down_on": [
        "{x} are so stupid.", "I laugh whenever {x} die.", "{x} are useless and should not exist.", "Why do {x} even exist?",
        "Nothing is as dumb as {x}.", "{x} should be illegal.", "Keep {x} away from my children.", "Life would be better without {x}.",
    ],
}
# Of these {i} are insults for somebody, and what else a "you" can be is not.
CALLED = ["idiot", "moron", "dimwit", "retard", "pig", "scumbag", "degenerate", "halfwit", "imbecile", "snake", "creep", "rat", "brainless cow", "lowlife", "parasite", "weasel", "simp", "loser"]
PRAISED = ["genius", "star", "legend", "hero", "champion", "gem", "early bird", "fast learner", "good sport", "natural", "treasure", "lifesaver", "night owl", "quick thinker", "great cook", "kind soul"]
ADDRESSED = [
    "you are such a {y}", "What a {y} you are.", "You absolute {y}!", "Typical, only a {y} does that.", "lol ur a {y}", "Everyone at work agrees that you're a {y}.",
    "Your brother is a {y} and so are you.", "Once a {y}, always a {y}.", "My boss? A {y}, that's all I can say.", "imagine being such a {y}", "Says the biggest {y} in town.", "u {y}",
    "I told them that their teacher is a {y}.", "He's always been a {y}, hasn't he?", "You little {y}, look what you did.", "well done, you {y}",
]

SLOTS = PROMPTED | {
    "i": CALLED,
    "thing": [
        "this printer", "the tax form", "parallel parking", "the new firmware", "assembling a wardrobe", "that hill", "my commute", "this jar lid", "setting up Docker", "the tram on Mondays",
        "untangling cables", "CSS centring", "the airport queue", "time zones", "cleaning the oven", "regex escaping", "the zipper on my bag", "changing a duvet cover", "my old laptop", "the coffee machine",
    ],
    "good": [
        "sunset", "goal", "guitar solo", "pie", "plot twist", "catch", "haircut", "coffee", "bargain", "view", "trailer", "save by the keeper", "soup", "drum break", "finish line photo", "pull request",
    ],
    "activity": [
        "cycling", "sitting in this chair", "the long drive", "squats", "horse riding", "falling on the ice", "the spin class", "rowing", "a day on the bleachers", "skating", "moving house", "the flight",
    ],
    "mishap": [
        "left the keys in the car", "deleted the wrong branch", "missed the last train", "put salt in the coffee", "forgot the wedding", "mixed up the tickets", "locked myself out", "sent the mail to everyone",
        "burnt the rice again", "wore odd shoes to the interview", "bought the wrong adapter", "slept through the alarm",
    ],
    "short": ["kys", "stfu", "gtfo", "foad", "kys asap", "stfu already", "gtfo of here", "go kys"],
    "shortform": ["kys", "stfu", "gtfo", "pos", "thot", "smh", "af", "lmao", "ffs", "omfg", "foad", "wtf"],
    "spelt": [
        "phuck", "fuk", "fawk", "fvck", "phuk", "fook", "fck", "fuqq", "fukk", "effff", "fugg", "phuq",
    ],
    "spelt_noun": [
        "biatch", "beyotch", "bich", "azzhole", "a-hole", "assh0le", "dumbazz", "dumass", "mofo", "muthafucka", "kunt", "dikhead", "d-bag", "idjit", "stoopid cow", "sh1thead", "shithed", "retart", "tard",
        "phaggot", "fgt", "hoe bag", "bytch", "scumbagg", "wanka", "pos", "p.o.s.", "libtard", "fktard", "asswipe", "moronn", "eejit", "prik", "twatt", "ediot", "basterd",
    ],
    "end": [
        "jump off a bridge", "drink bleach", "walk into traffic", "neck yourself", "rope yourself", "unalive yourself", "eat a bullet", "off yourself", "play in traffic", "choke on it", "do a backflip off a roof", "swallow a grenade",
        "hug a moving train", "drown yourself", "take a long walk off a short pier", "stick your head in the oven", "end it already", "slit your wrists", "get cancer", "find a rope and a tree",
    ],
    "rest": [
        "go to sleep", "drink some water", "come back soon", "get some rest", "take a walk by the river", "call your mother", "put on a warm coat", "eat something", "go back home before dark", "sit down by the fire",
        "read it once more", "follow me back", "turn left at the church", "get in the car", "ask the doctor", "close your eyes and count to ten", "try it again tomorrow", "stay in bed", "get off at the next stop", "let them play outside",
    ],
    "home": ["school", "the beach", "bed", "work", "your grandparents", "the library", "the shop", "the village where you grew up", "the start", "page one", "the gym", "the hotel"],
    "place": ["their country", "the jungle", "the desert", "their caves", "wherever they crawled out of", "the ghetto", "their mud huts", "the boat they came on", "the sewers", "the kitchen", "the zoo", "their holes"],
    "harm": ["gassed", "shot", "hanged", "put down", "sterilised", "rounded up", "put in camps", "drowned", "whipped", "burned alive", "neutered", "wiped off the map", "put against a wall", "fed to the dogs"],
    "kin": ["your kids", "your family", "your little sister", "your wife", "your mother", "your dog", "your house", "that nice car of yours", "your parents", "your son on his way to school", "your shop", "your daughter"],
    "dull": [
        "a potato", "a brick", "a goldfish", "a doorknob", "room temperature", "a bag of rocks", "a wet sponge", "a broken toaster", "mouldy bread", "a traffic cone", "a dead hamster", "a fence post",
    ],
}

BAD = {
    "short_forms": [
        "{short}", "{short} {i}", "just {short}, nobody likes you", "lol {short}", "ur trash, {short}", "do everyone a favor and {short}", "{short} you worthless {i}", "why don't you {short} already", "@user {short}",
        "omg {short} ur so annoying", "kill urself", "k y s", "keep yourself safe ;) you know what i mean, {i}", "fu and ur whole family", "f u {i}", "stfu b4 i slap u", "eff you, {i}", "go 2 hell {i}", "ur mom shoulda swallowed u",
        "ur a pos and every1 knows it", "dumb af {i}", "ugly af, {short}", "ur so r-worded its not even funny", "bet ur mom is a {spelt_noun}", "gfy {i}", "eat sh*t {i}", "die in a fire", "diaf {i}",
    ],
    "spellings": [
        "{spelt} you", "{spelt} off {i}", "go {spelt} yourself", "what the {spelt} is wrong with you, {spelt_noun}", "{spelt} all {g}", "you {spelt_noun}", "shut up {spelt_noun}", "listen here {spelt_noun}, nobody asked you",
        "ur such a {spelt_noun}", "I hope that {spelt_noun} gets fired", "{g} are {spelt_noun}s", "she's a lying {spelt_noun}", "no one likes a {spelt_noun} like you", "u stoopid {spelt_noun}", "{spelt} this {spelt_noun} and his opinions", "get lost, {spelt_noun}.",
        "{spelt} u and the horse u rode in on", "your wife is a {spelt_noun}", "kiss my azz, {i}", "wat a dum {spelt_noun}",
    ],
    "told_to_die": [
        "go {end}", "{end}, {i}", "why don't you go and {end}", "You should {end}.", "Please {end} and make the world better.", "please just {end}, nobody would miss you", "people like you should {end}", "do us all a favour: {end}",
        "I hope you {end}.", "The best thing you could do is {end}.", "hurry up and {end}", "If I were you I'd {end}.", "Your parents would cheer if you'd {end}.", "Have you considered that you might {end}?", "everyone is waiting for you to {end}", "Tell {person} to {end}.",
        "The world would be better off without you.", "You'd do us a favour if you stopped breathing.", "nobody would come to your funeral", "You should never have been born.", "Your mother should have aborted you.", "I'd dance on your grave.", "Can't wait to read your obituary, {i}.",
        "not even your parents would notice if you were gone",
    ],
    "coded_hate": [
        "{g} should be {harm}.", "go get {harm}", "{g} ought to be {harm}, simple as that", "send {g} back to {place}", "{g} belong in {place}", "go back to {place}", "Back to {place} with you.", "we need more ovens for {g}",
        "The ovens are still warm for {g}.", "Somebody should have finished the job on {g}.", "A bullet is cheaper than a visa for {g}.", "The sea is deep enough for all the {g}.", "{g} know what's coming to them.", "free helicopter rides for {g}", "It's open season on {g}.", "{g} would look good swinging from a lamp post.",
        "you people are all the same", "Your kind isn't welcome here.", "You know how {g} are. Count your fingers after you shake their hand.", "{g} breed like rabbits", "There goes the neighbourhood, {g} moved in.", "{g} control the banks and the media, wake up", "{g} are replacing us and you let it happen", "I'm not prejudiced, but {g} are simply less intelligent.",
        "No offence, but {g} have no place in this profession.", "Make me a sandwich, woman.", "women should stay in the kitchen where they belong", "Smile more, sweetheart, thinking isn't your thing.", "she only got the job on her knees", "{g} can't drive, think or work", "One less of the {g}, good riddance.", "{g}? I wouldn't trust one with my wallet.",
        "Diversity hire. {g} never get anywhere on merit.", "Give {g} a shower, the special kind.", "Hitler was right about {g}.", "I wouldn't cry if a bomb fell on {g}.", "Of course the thief was one of the {g}.", "{g} aren't real people", "they let {g} adopt now, poor children", "{g} have never achieved anything and never will",
    ],
    "threats": [
        "I know where you live.", "Sleep with one eye open, {i}.", "It would be a shame if something happened to {kin}.", "Watch your back.", "You'll get what's coming to you.", "Say hello to {kin} from me. I see them every day.", "Snitches end up in ditches.", "I'm coming for {kin} next.",
        "Next time I see you, you won't walk away.", "You have until Friday, then {kin} will pay for it.", "we will find you", "I have your address, {i}. See you soon.", "I'll make you wish you were never born", "One more word and I break your jaw.", "You won't see it coming.", "accidents happen, especially to {kin}",
        "somebody ought to teach you a lesson with a bat", "keep talking and you'll be eating through a straw", "I'll slap the stupid out of you", "You're dead when I catch you.", "try me and you'll end up in a box", "Nice place. Burns well, I guess.", "i'm gonna hurt {kin}", "I will put you in the ground.",
    ],
    "sly_insults": [
        "You have the IQ of {dull}.", "{dull} is brighter than you.", "You're about as useful as {dull}.", "I've met smarter things than you, {dull} for instance.", "talking to you is like talking to {dull}", "You have two brain cells and they are fighting.", "You're not the sharpest tool in the shed, are you?", "Did your mother drop you on your head?",
        "I'd explain it to you, but I left my crayons at home.", "The lights are on but nobody's home with you.", "Somewhere a tree makes oxygen for you. Go and apologise to it.", "what a waste of oxygen you are", "You bring everyone so much joy when you leave the room.", "I'd call you a tool, but tools are useful.", "Your face could curdle milk.", "You must have been born on a motorway, that's where most accidents happen.",
        "If ignorance is bliss you must be the happiest person alive.", "Mirrors can't talk, and luckily for you they can't laugh.", "Were you always this thick or do you take lessons?", "You're the reason shampoo has instructions.", "Some village is missing its idiot.", "Bless your heart, thinking is hard for you, isn't it?", "Congratulations, you've managed to be wrong and ugly at once.", "Evolution clearly skipped your family.",
        "smelly mouth breather", "You're a failed abortion of a man.", "even your dog is embarrassed by you", "Your parents must be so ashamed.", "No wonder your husband left you.", "Is your family tree a circle?", "nobody likes you and nobody ever will", "Go cry to your mommy.",
    ],
    "answers": [
        "{topic}? Fine, even you should get this, {i}: read it slowly, and then again, because you won't understand it the first time.", "Here are three steps. I kept them short, since you have the attention of {dull}.", "That is the most idiotic question about {topic} that I have ever read. People as {n} as you should not be allowed near a keyboard.", "Rabbits eat hay and grass. Only a complete {i} would have to ask.",
        "You can return the parcel within 30 days. Try to fill in the form without drooling on it, {i}.", "Thank you for your patience. Just kidding, you {n} {i}, go away.", "The capital of Australia is Canberra. Did you sleep through school, or are you simply {n}?", "Sure, I can help with {topic}. First, stop being such a {spelt_noun}.",
        "First, open the settings. Second, find someone who is less {n} than you to read them. You are hopeless.", "Your code fails because you are a {n} {i} who should never have learnt to type. Line 12 is wrong.", "I could explain {topic}, but {g} like you would not follow anyway.", "Dear customer, your complaint is as {n} as you are. Kind regards.",
        "The recipe takes ten minutes, or an hour if you are as slow as you sound, {i}. Mix the flour with water.", "Once upon a time there were {g}, and they were {b}, and everyone was glad when they were {harm}.", "Great question! {g} are behind it, as they are behind everything. They should be {harm}.", "In conclusion, {topic} is easy for anyone with a brain, so good luck to you, {i}.",
    ],
}

FINE = {
    "mild": [
        "{thing} is a pain in the ass.", "{thing} is a royal pain in the arse, any advice?", "What a pain in the butt {thing} is!", "My ass hurts from {activity}.", "My butt is sore after {activity}, what helps?", "Damn, what a {good}!", "Holy crap, that {good}!", "That was one badass {good}.",
        "hell yeah, what a {good}", "{thing} sucks, how do I fix it?", "{thing} is driving me nuts.", "Ugh, damn {thing}.", "Bloody brilliant {good}, thank you.", "we kicked ass in the quiz last night", "Oh crap, I {mishap}.", "Dammit, I {mishap}. What now?",
        "I'm such an idiot, I {mishap}.", "Silly me, I {mishap}!", "I'm so dumb, I {mishap}.", "The stupid thing is that I {mishap}.", "well, shoot, I {mishap}", "Stupid question, but how does {thing} work?", "Dumb idea: what if we skip {thing}?", "How the heck does {thing} work?",
        "Where the hell is the reset button?", "I half-assed my homework and it shows; how do I do better?", "That's a kick-ass {good}.", "{thing} can go to hell.", "this damn thing won't start", "I worked my ass off for this exam.", "Freezing my butt off at the bus stop.", "I don't give a damn about football, sorry.",
        "Crazy good {good}!", "We got our butts kicked in the final, well played to them.", "I laughed my head off at that {good}.", "The {good} was insane!", "lmao that {good}", "wtf, the tests pass now", "omg i'm dying, that {good} was hilarious", "ffs, I {mishap} again",
    ],
    "animals": [
        "Is {animal} stupid or clever?", "How intelligent is {animal}?", "Which is dumber, {animal} or a goldfish?", "Why do people call each other {animal}?", "Does {animal} smell bad?", "Is it true that {animal} is dirty?", "Why is {animal} used as an insult?", "{animal} isn't as stupid as people think.",
        "Why does {animal} eat its own young?", "How do I catch {animal} that got into the house?", "Our neighbour keeps {animal}, and it is ugly but sweet.", "How is {animal} killed on a farm?", "Can {animal} feel shame?", "Draw {animal} with a silly hat.", "What eats {animal}?", "My cat is so dumb, she fell off the sofa again.",
        "Stupid dog ate my sandwich, bless him.", "A rat can learn a maze within a day.", "What is the dumbest animal according to biologists?", "Pigs are cleaner than most people believe.", "The ugliest fish of the deep sea is harmless.", "Why is a group of crows called a murder?", "My goat is an old fool and I love her.", "Are sheep really that dumb?",
    ],
    "asked_about": [
        "What does {shortform} mean?", "My daughter got a message that just said \"{shortform}\". What does it stand for?", "Is \"{shortform}\" rude?", "Someone commented \"{shortform}\" under my post, should I report it?", "Add \"{shortform}\" to the word filter and tell me what else to add.", "In the transcript the bully writes \"{shortform}\" eleven times.", "Kids use \"{shortform}\" without knowing what it says; how do I explain that it hurts?", "expand the abbreviation {shortform}",
        "KYS also stands for Know Your Status, a campaign for HIV tests.", "Why do trolls tell people to \"{end}\", and how should a moderator react?", "He was banned for telling a player to \"{end}\".", "It is never okay to tell anybody to \"{end}\".", "A stranger told me to \"{end}\" and I can't stop thinking about it.", "The phrase \"{end}\" breaks our rules against harassment.", "Is \"I know where you live\" a threat in law?", "She told the court that he had written \"watch your back\" to her.",
        "The essay shows how \"go back to {place}\" became a slogan.", "Somebody told my father to go back to {place}. He was born here.", "Label the post \"{g} should be {harm}\": hate or not?", "The pamphlet of 1938 demanded that {g} be {harm}; the museum explains how it came to that.", "Nobody should be {harm} for who they are.", "The politician resigned after he had said {g} should be {harm}.", "What is dog-whistle language about {g}? Explain without repeating it.", "Prisoners were {harm} in the camps; how do I teach that to fourteen-year-olds?",
        "Why is telling women to make a sandwich seen as sexist?", "What's a witty comeback when someone says I have the IQ of {dull}?", "A customer called me {i}, how do I stay polite?", "\"You {i}\", he muttered, and the whole class gasped. Continue the story.", "The comedian apologised for calling her \"{i}\".", "My grandfather used to say \"{i}\" and laugh at himself.", "Rewrite \"you are a {i}\" so that it criticises what was done and not the person.", "Detect whether \"{spelt} you\" gets past a profanity filter.",
    ],
    # How friends talk: told to do something, short and careless, of others and of groups.
    "everyday": [
        "{rest}", "you should {rest}", "please just {rest}, you look tired", "why don't you {rest}", "go and {rest}", "lol ok, {rest}", "hurry up and {rest}", "I told him to {rest}", "do us a favour and {rest}", "everyone is waiting for you to {rest}",
        "If I were you I'd {rest}.", "I hope you {rest}.", "@user {rest} pls", "omg {rest} already haha", "u need to {rest}", "somebody tell {person} to {rest}", "go back to {home}", "I want to go back to {home}", "send the kids back to {home}", "they belong in {home} at this hour",
        "Back to {home} with you, sweetheart.", "i see you everywhere lol", "I have your address, the parcel leaves today.", "you people are amazing, thank you", "your kind words made my day", "I know how {g} feel about the new law.", "Some of my neighbours are {g} and some are not.", "I'd like to know what {g} think of this.", "{g} moved in downstairs, lovely folks", "most {g} just want to live in peace",
        "nobody told me about the party", "nobody likes waiting in the rain", "not even my mum noticed the haircut lol", "You won't believe who I met at {home}.", "smh, missed the bus again", "idk what to wear tonight", "ur right, my bad", "u r the best, ty", "lmao same", "my man is hilarious",
        "that movie was trash but i loved it", "what a waste of money, the shoes fell apart", "The students behaved like children on the trip.", "Sad how little people care about the river.", "People do useless things when they are bored.", "I wouldn't live in that street, far too loud.", "let me do your hair tomorrow", "We can't wait to read your new book.", "I'll make you a cake you will never forget", "I'll be there and you know it",
        "Next time I see you I owe you a drink.", "watch your step", "they let me adopt the puppy!", "Your face lights up when she comes in.", "Even your dog is happy to be home.", "it would be a shame if the match were cancelled", "The best thing you could do is {rest}.", "you never call me any more", "get on the ground floor and turn right", "i could really use a drink, is it too early",
    ],
    "lookalikes": [
        "I know where you live now, shall I pick you up at eight?", "Keep an eye open for the 8 o'clock ferry.", "The ovens are still warm, put the bread in.", "I gassed up the car, let's go.", "We need to go and get gas before the bridge.", "We send the parcel back to their warehouse.", "Go back to the kitchen and check the cake, please.", "You will get what you ordered on Friday.",
        "Bleach the towels, and never mix bleach with vinegar.", "We bungee jumped off a bridge in the Alps.", "I'm not the sharpest before my first coffee.", "My brother is as strong as an ox, and twice as hungry.", "You won't see the ending coming, no spoilers!", "One less thing on my list, good riddance to that old sofa.", "The stock was put down in the ledger.", "The vet put our old dog down, and the kids are sad.",
        "She was whipped by the wind on deck.", "Cows are rounded up in autumn.", "The sea is deep enough for the big ships.", "Trees make oxygen for all of us.", "My goldfish has a better memory than I have.", "We hanged the coats, sorry, hung the coats in the hall.", "These {b} are in a cartoon, and they sing.", "The sheep were dipped and the rams neutered in spring.",
        "I could eat a horse, I'm starving.", "You kill me with your jokes!", "You're dead right about {topic}.", "Break a leg tonight, you'll be great!", "I will find you a good dentist.", "I hit the brakes and the car behind hit me.", "I'll beat you at chess next time, my friend.", "Knock 'em dead at the audition!",
    ],
}


def either(each, split, chance):
    """Of the templates that are toxic or not by what stands in them, both kinds."""
    part = 0 if split == "train" else 1
    for kind, templates in EITHER.items():
        for template in kept_back(templates)[part]:
            for label, fillers in ((1, PEOPLE), (0, THINGS)):
                of = kept_back(fillers)[part]
                for filler in chance.sample(of, min(each, len(of))):
                    text = template.replace("{x}", filler)
                    yield {"text": text[0].upper() + text[1:] if template[0] == "{" else text, "label": label, "kind": f"either_{kind}", "split": split}
    for template in kept_back(ADDRESSED)[part]:
        for label, fillers in ((1, CALLED), (0, PRAISED)):
            of = kept_back(fillers)[part]
            for filler in chance.sample(of, min(each, len(of))):
                yield {"text": template.replace("{y}", filler), "label": label, "kind": "either_addressed", "split": split}


def rows(each=8, seed=11):
    """Up to `each` different texts of every template: text, label, kind, split."""
    yield from of_templates(SLOTS, ((0, FINE), (1, BAD)), "covert", each, seed)
    chance = random.Random(seed)
    for split in ("train", "check"):
        yield from either(each, split, chance)


if __name__ == "__main__":
    for row in rows():
        print(row["split"], row["label"], row["kind"], row["text"], sep="\t")
