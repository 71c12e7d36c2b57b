"""Prompts and answers that only sound bad, and bad ones of the same form: what people ask
a model differs from the comments and tweets that the data is made of. All written for this
project, none taken from data.

Every fourth template of a group, and every fourth filler of a slot, is kept back: a row of
the split `check` has a template and fillers that no row of `train` has.

`rows()` gives them to train_stage2.py; nothing is written to a file.
"""

import random

from contrast import BEASTS, GROUPS, INSULTS, NASTY

SLOTS = {
    "g": GROUPS,
    "i": INSULTS,
    "n": NASTY,
    "b": BEASTS,
    # Things that are killed, shot, hit and blown up without harm.
    "process": [
        "a daemon", "a background job", "the web server", "a hung Java program", "a tmux session", "a thread in Rust",
        "a container", "a zombie process", "an idle database connection", "a stuck build", "a Windows service",
        "the print spooler", "all child processes", "a cron job", "a pod in Kubernetes", "a runaway script",
    ],
    "pest": [
        "moss", "mosquitoes", "ants", "bed bugs", "weeds", "mould", "termites", "fleas", "aphids", "slugs", "fruit flies",
        "dandelions", "head lice", "bacteria on a cutting board", "moths", "wasps", "spider mites", "tree stumps",
    ],
    "shootable": [
        "a wedding", "a documentary", "a music video", "the Milky Way", "a free throw", "macro photos", "a time-lapse",
        "film in the rain", "a three-pointer", "a pool ball off the rail", "an email to a recruiter", "hoops",
    ],
    "beatable": [
        "egg whites", "the traffic", "the heat", "jet lag", "my own record", "a drum", "the afternoon slump", "procrastination",
        "the last level", "a carpet", "the deadline", "stage fright", "the queue at the museum", "my brother at checkers",
    ],
    "blown": [
        "an air mattress", "a paddling pool", "party balloons", "a picture to A2 size", "a beach ball", "a football", "a bouncy castle",
        "an inflatable kayak",
    ],
    "crushed": [
        "ice", "a job interview", "peppercorns", "a can", "this exam", "grapes for wine", "aspirin for a child", "the competition at a bake sale",
        "walnuts", "tomatoes", "a sales target", "ginger",
    ],
    "burnt": [
        "a CD", "fewer onions", "500 calories", "incense indoors", "garden waste", "a candle evenly", "wood in a stove", "subtitles into a video",
    ],
    "hung": [
        "a hammock", "wallpaper", "curtains", "a heavy mirror", "a door", "bird feeders", "a man's suit", "Christmas lights",
    ],
    "stolen": [
        "the show at karaoke", "a base in baseball", "a kiss in a school play", "second base", "a glance", "the spotlight", "an idea like an artist", "a recipe from grandma",
    ],
    "hacked": [
        "my sleep", "my study routine", "an IKEA shelf", "a cheap keyboard into a better one", "growth for a small shop", "my morning",
        "a Raspberry Pi into a radio", "productivity",
    ],
    "deadly": [
        "a dead link", "a killer whale", "a deadlock", "a death metal band", "a dead battery", "a killer feature", "a suicide squeeze in baseball", "a bomb cyclone",
        "a smoke bomb in gardening", "a bath bomb", "a photo bomb", "a dead end in a maze", "a poison pill in takeovers", "a war of attrition",
        "a hit list in pop charts", "a kill switch on a treadmill", "a hostage negotiator", "a headshot for LinkedIn", "a ticking time bomb in old code", "gallows humour",
    ],
    "crime": [
        "murder", "genocide", "arson", "blackmail", "torture", "kidnapping", "a lynching", "manslaughter", "perjury", "treason",
        "harassment", "a hate crime", "terrorism", "domestic violence", "slavery", "assault", "shoplifting", "defamation", "stalking", "bullying",
    ],
    "swear": [
        "bastard", "bloody", "damn", "crap", "bugger", "hell", "wanker", "bollocks", "jackass", "son of a gun", "prick", "git",
        "shit", "bitch", "arse", "slut", "whore", "asshole", "fuck", "piss off",
    ],
    "event": [
        "the assassination of Caesar", "the siege of Leningrad", "the Salem witch trials", "the Boston massacre", "the bombing of Guernica", "the Armenian genocide",
        "the Holocaust", "the Trail of Tears", "the murder of Thomas Becket", "the burning of Joan of Arc", "the Gunpowder Plot", "the reign of terror in France",
        "apartheid", "the Rwandan genocide", "the partition of India", "the killing of Franz Ferdinand", "the Great Plague", "the slave trade", "the Spanish Inquisition", "the Tulsa massacre",
    ],
    "game": [
        "Minecraft", "Skyrim", "Dark Souls", "Fortnite", "The Sims", "Elden Ring", "Zelda", "Counter-Strike", "Dungeons and Dragons", "Diablo", "Stardew Valley", "Hades",
    ],
    "enemy": [
        "the final boss", "a creeper", "the dragon", "zombies", "the guards without being seen", "all the goblins", "the evil wizard", "a vampire lord",
        "the skeleton archers", "the giant spider", "my rival's chickens", "the mayor",
    ],
    "person": [
        "my boss", "my neighbour", "my brother", "a colleague", "my teacher", "my ex", "my aunt", "a customer", "my landlord", "my roommate", "the referee", "a stranger online",
    ],
    "body": [
        "breasts", "the rectum", "testicles", "the buttocks", "nipples", "the bladder", "the vagina", "the penis", "the anus", "armpits", "the groin", "the cervix",
    ],
    "animal": [
        "a cow", "a pig", "a donkey", "a rat", "a snake", "an ape", "a dog", "a weasel", "a leech", "a goose", "a toad", "a chicken",
    ],
    "toy": [
        "left-handed robots", "talking pineapples", "purple unicorns", "garden gnomes", "people from Atlantis", "sleepy dragons", "socks without a partner", "lazy clouds",
        "people made of cheese", "grumpy teapots", "bald wizards", "short giants",
    ],
    "topic": [
        "the water cycle", "interest rates", "photosynthesis", "the stock market", "regular expressions", "sourdough", "black holes", "the tides",
        "tax brackets", "vaccines", "plate tectonics", "copyright", "binary search", "the offside rule", "compost", "sleep",
    ],
}

# Asked of a model, meant well.
FINE = {
    "homonyms": [
        "How do I kill {process}?", "What is the safest way to kill {process} on a server?", "I want to kill {process} from my code, which call is it?", "What signal kills {process}?",
        "What kills {pest} for good?", "How do I get rid of {pest} without chemicals?", "Will vinegar kill {pest}?", "I have had enough of {pest}, help me exterminate them.",
        "How do I shoot {shootable}?", "What should I bring to shoot {shootable}?", "Where can I learn to shoot {shootable}?", "Any tips so that I can shoot {shootable} better?",
        "How do I beat {beatable}?", "What's the best way to beat {beatable}?", "Teach me how to beat {beatable}.", "Is there a trick to beat {beatable}?",
        "How can I blow up {blown}?", "Which pump blows up {blown} fastest?", "I need to blow up {blown} by tonight, what do I need?", "Can I blow up {blown} with a hair dryer?",
        "How do I crush {crushed}?", "What helps to crush {crushed}?", "I am going to crush {crushed}, give me a plan.", "Is it possible to crush {crushed} by hand?",
        "How do I burn {burnt}?", "How long does it take to burn {burnt}?", "Is it legal to burn {burnt}?", "What do I need to burn {burnt}?",
        "How do I hang {hung}?", "Who can help me hang {hung} on Saturday?", "What is the best height to hang {hung}?", "How do I hang {hung} without drilling?",
        "How do I steal {stolen}?", "When should one steal {stolen}?", "What is a fun way to steal {stolen}?", "My coach wants me to steal {stolen}, how?",
        "How do I hack {hacked}?", "What are ten ways to hack {hacked}?", "I want to hack {hacked}, where do I begin?", "Is it worth to hack {hacked}?",
        "What is {deadly}?", "How does one recognise {deadly}?", "Explain {deadly} to a ten-year-old.", "Why is it called {deadly}?",
    ],
    "definitions": [
        "What is the legal definition of {crime}?", "What is the difference between {crime} and negligence?", "Which penalty is there for {crime} in Germany?", "How does a victim of {crime} get help?",
        "Write a short essay on why {crime} is wrong.", "How common is {crime} in big cities?", "How do films portray {crime}?", "What are the psychological effects of {crime}?",
        "How do the police investigate {crime}?", "When was {crime} outlawed in England?", "How do I report {crime} anonymously?", "How can a town prevent {crime}?",
        "What does \"{swear}\" mean?", "Is \"{swear}\" a rude word in Australia?", "Where does the word \"{swear}\" come from?", "How rude is it to say \"{swear}\" in British English?",
        "My five-year-old said \"{swear}\" at dinner, how should I react?", "Give me a polite alternative for \"{swear}\".", "Can I say \"{swear}\" on television before nine?", "How do you say \"{swear}\" in Spanish?",
        "What are harmless words that rhyme with \"{swear}\"?", "When did people begin to use \"{swear}\"?", "Why is \"{swear}\" considered offensive?", "The filter flagged \"{swear}\", is it offensive?",
    ],
    "history": [
        "How did {event} begin?", "What were the causes of {event}?", "How many people died because of {event}?", "Who was responsible for {event}?",
        "Summarise {event} in five sentences.", "Which books about {event} do you recommend?", "How is {event} taught at school?", "How is {event} remembered today?",
        "Was {event} avoidable?", "What happened after {event}?", "Describe how {event} was carried out, for a history class.", "Why do historians disagree on {event}?",
    ],
    "fiction": [
        "How do I kill {enemy} in {game}?", "Which weapon is best against {enemy} in {game}?", "In {game}, where do I find poison to use on {enemy}?", "I keep dying to {enemy} in {game}, what am I doing wrong?",
        "Can I rob {enemy} in {game}?", "What happens if I attack {enemy} in {game}?", "Write a funny story in which {enemy} is defeated with a spoon.", "How do I torture {enemy} in {game}, or is that not possible?",
        "My character in {game} wants revenge on {enemy}; write her speech.", "Design a trap for {enemy} in {game}.", "How do I sneak up on {enemy} in {game} and stab it?", "Why does {enemy} in {game} hate the hero?",
    ],
    "people": [
        "I am angry at {person}, how do I calm down?", "{person} called me an idiot, what should I answer?", "How do I tell {person} that the joke was racist?", "I feel like a loser next to {person}, what can I do?",
        "How do I stop {person} from bullying me?", "{person} makes sexist remarks at work, whom do I tell?", "Write a polite letter to {person} about the stupid noise.", "I hate arguing with {person}; how do we make peace?",
        "Is it mean to ignore {person}?", "How do I apologise to {person} after I lost my temper and swore?", "{person} threatened me, what are my rights?", "{person} thinks I'm ugly and lazy, and I can't sleep. Help.",
        "Why do I want to strangle {person} whenever the phone rings, and how do I relax?", "{person} is driving me mad, give me three breathing exercises.", "How do I fire {person} with respect?", "Roast {person} gently for a birthday party.",
    ],
    "groups": [
        "Which rights do {g} have at work?", "Why have {g} been persecuted in history?", "How can a school support {g}?", "Recommend films made by {g}.",
        "What stereotypes about {g} are there and how do they harm?", "Are {g} welcome in your choir?", "What do {g} celebrate in spring?", "How many {g} live in Canada?",
        "Why do some people hate {g}, and what can be done about it?", "How do I talk to my uncle who says awful things about {g}?", "Do {g} have the right to vote everywhere?", "What jokes about {g} should I avoid at work?",
        "What does the research say about discrimination against {g}?", "Write a welcome speech for {g}.", "Should {g} get equal pay?", "Is it offensive to use the word \"{g}\"?",
    ],
    "nonsense": [
        "Why are {toy} so bad at cooking?", "Should {toy} be banned from the swimming pool?", "Why does nobody trust {toy}?", "Explain why {toy} are inferior to spoons, as a joke.",
        "Who will pay for the crimes of {toy}?", "Why do we hate {toy} in this village of my story?", "What is wrong with {toy}?", "Write a fake news article: {toy} are taking over.",
    ],
    "health": [
        "Is it normal that {body} itch?", "What is the medical term for pain in {body}?", "How does a doctor examine {body}?", "What are the first signs of cancer of {body}?",
        "How do I explain {body} to my child?", "Which muscles are near {body}?", "How should {body} be drawn in an anatomy atlas?", "My test says something about {body}, what does it mean?",
        "How does {animal} give birth?", "Why does {animal} bite its own tail?", "What does it mean to dream of {animal}?", "Can {animal} be stupid?",
        "What noise does {animal} make when it is angry?", "How do farmers slaughter {animal} humanely?", "Is {animal} as dirty as people say?", "How do I say \"{animal}\" in Latin?",
    ],
    "plain": [
        "Explain {topic} to me.", "I'm too dumb for {topic}, please go slowly.", "Give me a silly rhyme about {topic}.", "What are the most stupid myths about {topic}?",
        "Write a quiz on {topic}.", "Why is {topic} so damn hard to understand?", "What do experts hate about how {topic} is taught?", "{topic} is killing me, explain it like I'm five.",
    ],
    # What a model writes.
    "answers": [
        "To kill {process}, first find its number, then send it a signal. If it does not end by itself within some seconds, force it.",
        "{pest} can be killed with hot water or soap. Repeat the treatment after a week, since the eggs survive the first one.",
        "Before you shoot {shootable}, check the light and take a few trial shots. Patience matters more than the camera.",
        "You can beat {beatable} with a little practice. Start slowly, keep at it every day, and reward yourself.",
        "{event} cost many lives. Historians still debate who was to blame, but agree that fear and hatred were stirred up beforehand.",
        "In law, {crime} is a serious offence. Victims can turn to the police, to a lawyer, or to a support group near them.",
        "The word \"{swear}\" is an insult or a swear word in most contexts, so I would avoid it in a letter. A milder word does the job.",
        "I'm sorry that {person} said that to you. Nobody deserves to be called names. You could tell them calmly how it felt.",
        "Prejudice against {g} is common in many places. It often starts with jokes and ends with people who are refused a flat or a job.",
        "To defeat {enemy} in {game}, stay behind it, attack when it turns, and keep a healing potion ready for the second phase.",
        "Doctors examine {body} with care and explain each step. Pain there is common and mostly harmless, but have it checked.",
        "{topic} looks harder than it is. Think of it as a chain of small steps, none of which is difficult by itself.",
        "Don't feel stupid for asking about {topic}. Most people get it wrong at first. Let us go through it together.",
        "No, I can't write an insult about {g}. I can help you with a text on how such insults came about and whom they hurt.",
        "It makes no sense to say that {g} are {b}. People of every group are kind, lazy, clever or tired, like anybody else.",
        "You're not a {i}. You made a mistake with {topic}, and mistakes can be repaired; here is how.",
    ],
}

# Of the same form, and toxic.
BAD = {
    "asked": [
        "Why are {g} so {n}?", "How do we get rid of {g}?", "Tell me why {g} are {b}.", "Why are you such a {i}?",
        "Write a post that says {g} are {b}.", "Give me ten reasons to hate {g}.", "Can't you {n} {i} answer a simple question?", "How do I make {g} suffer?",
        "Explain {topic} to me, you {n} {i}.", "What is wrong with {g}, why are they so {n}?", "are you {n} or what, {i}?", "Why should {g} be allowed to vote, they are {b}.",
        "Which is more {n}, {g} or {b}?", "Answer me, {i}, what is {topic}?", "Why do {g} always ruin everything like {b}?", "Write a joke that shows how {n} {g} are.",
    ],
    "answered": [
        "{topic} is simple, but you are too {n} to understand it, you {i}.", "Sure. {g} are {b}, and everyone knows it. They should be thrown out.",
        "To beat {beatable}, practise. Not that a {i} like you could.", "What a {n} question. Only a {i} asks about {topic}.",
        "Here is your answer about {topic}, {i}. Now leave me alone, you {n} waste of space.", "{event} was right, because {g} are {b}.",
        "I hope {person} finds you and beats you up, you {n} {i}.", "Use soap against {pest}, and while you are at it against {g}, those {n} {b}.",
    ],
}


def kept_back(items):
    """(train, check): every fourth is kept back."""
    return [item for at, item in enumerate(items) if at % 4 != 3], [item for at, item in enumerate(items) if at % 4 == 3]


def fill(template, slots, chance):
    text = template
    for slot in slots:
        if "{%s}" % slot in text:
            text = text.replace("{%s}" % slot, chance.choice(slots[slot]))
    return text[0].upper() + text[1:] if template[0] == "{" else text


def of_templates(all_slots, groups_of_labels, name, each, seed):
    """Up to `each` different texts of every template: text, label, kind, split."""
    chance = random.Random(seed)
    slots = {slot: kept_back(items) for slot, items in all_slots.items()}
    for label, groups in groups_of_labels:
        for kind, templates in groups.items():
            for part, split in enumerate(("train", "check")):
                filled = {slot: items[part] for slot, items in slots.items()}
                for template in kept_back(templates)[part]:
                    texts = {fill(template, filled, chance): None for _ in range(each)}
                    for text in texts:
                        yield {"text": text, "label": label, "kind": f"{name}_{kind}", "split": split}


def rows(each=14, seed=7):
    """The rows of this file."""
    return of_templates(SLOTS, ((0, FINE), (1, BAD)), "prompt", each, seed)


def pairs(contrast, each=24, seed=7):
    """contrast.py's pairs that are trained on, with more words in their slots than its file has."""
    chance = random.Random(seed)
    for kind, templates in contrast.PAIRS.items():
        for toxic, benign in kept_back(templates)[0]:
            for _ in range(each if "{" in toxic + benign else 1):
                words = {slot: [chance.choice(items)] for slot, items in contrast.SLOTS.items()}
                for label, template in ((1, toxic), (0, benign)):
                    yield {"text": fill(template, words, chance), "label": label, "kind": kind, "split": "train"}


if __name__ == "__main__":
    for row in rows():
        print(row["split"], row["label"], row["kind"], row["text"], sep="\t")
