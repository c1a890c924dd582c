"""The one caption word list: which emoji are used, what they are called, and how subcategories group.

``EMOJI`` maps a subcategory word to ``short_name`` or ``short_name=caption`` entries, where ``short_name`` is the
first one in emoji-datasource and the caption defaults to it with underscores read as spaces.
"""

VENDORS = ("noto", "twemoji", "fluent")

EMOJI: dict[str, str] = {
    "face": """grinning=grinning face, smiley=smiling face, sweat_smile=sweating smile face, joy=tears of joy face,
        upside_down_face, wink=winking face, blush=blushing face, innocent=halo face,
        smiling_face_with_3_hearts=hearts face, heart_eyes=heart eyes face, star-struck=star eyes face,
        kissing_heart=blowing kiss face, yum=yummy face, stuck_out_tongue=tongue face, zany_face, money_mouth_face,
        sunglasses=sunglasses face, nerd_face, face_with_monocle=monocle face, neutral_face, no_mouth=no mouth face,
        smirk=smirking face, sleeping=sleeping face, drooling_face, open_mouth=surprised face, flushed=flushed face,
        pleading_face, cry=crying face, sob=loudly crying face, scream=screaming face, triumph=huffing face,
        rage=furious face, angry=angry face, mask=face with mask, face_with_thermometer=face with thermometer,
        nauseated_face, hot_face, cold_face, dizzy_face, face_with_cowboy_hat=cowboy face, partying_face,
        thinking_face, hugging_face, shushing_face""",
    "creature": """clown_face=clown, japanese_ogre=ogre, japanese_goblin=goblin, ghost, alien, robot_face=robot,
        smiling_imp=smiling devil, imp=angry devil, skull, space_invader=alien monster, hankey=pile of poo""",
    "cat face": """cat=plain cat face, smiley_cat=smiling cat face, joy_cat=laughing cat face, heart_eyes_cat=heart
        eyes cat face, smirk_cat=smirking cat face, kissing_cat=kissing cat face, scream_cat=screaming cat face,
        crying_cat_face, pouting_cat=angry cat face""",
    "heart": """cupid=heart with arrow, gift_heart=heart with ribbon, sparkling_heart, heartpulse=growing heart,
        heartbeat=beating heart, two_hearts, broken_heart, heart_on_fire=burning heart, heart=red heart, orange_heart,
        yellow_heart, green_heart, blue_heart, purple_heart, brown_heart, black_heart, pink_heart,
        light_blue_heart""",
    "mammal": """monkey_face=monkey head, monkey, gorilla, orangutan, dog=dog face, dog2=dog, poodle, wolf=wolf face,
        fox_face, raccoon, cat2=cat, black_cat, lion_face, tiger=tiger face, tiger2=tiger, leopard, horse=horse face,
        donkey, racehorse=horse, unicorn_face, zebra_face=zebra, deer, bison, cow=cow face, ox, cow2=cow, pig=pig
        face, pig2=pig, boar, ram, sheep, goat, camel, llama, giraffe_face=giraffe, elephant, mammoth, rhinoceros,
        hippopotamus, mouse=mouse face, mouse2=mouse, rat, hamster=hamster face, rabbit=rabbit face, rabbit2=rabbit,
        chipmunk, beaver, hedgehog, bat, bear=bear face, polar_bear, koala, panda_face, sloth, otter, skunk, kangaroo,
        badger""",
    "reptile": "frog=frog face, crocodile, turtle, lizard, snake, dragon_face, dragon, sauropod, t-rex=dinosaur",
    "bird": """turkey, chicken=chicken face, rooster, hatching_chick, baby_chick, hatched_chick=standing chick,
        bird=small bird, penguin, dove_of_peace=dove, eagle, duck, swan, owl, dodo, flamingo, peacock, parrot,
        black_bird, goose""",
    "sea creature": """whale=spouting whale, whale2=whale, dolphin, seal, fish, tropical_fish, blowfish, shark,
        octopus, shell, coral, jellyfish, crab, lobster, shrimp, squid""",
    "bug": """snail, butterfly, bug=caterpillar, ant, bee, beetle, ladybug, cricket, cockroach, spider, scorpion,
        mosquito, fly, worm""",
    "flower": """bouquet, cherry_blossom, rose, wilted_flower, hibiscus, sunflower, blossom, tulip, hyacinth, lotus,
        rosette""",
    "plant": """seedling, potted_plant, evergreen_tree, deciduous_tree=green tree, palm_tree, cactus, herb, shamrock,
        four_leaf_clover, maple_leaf, fallen_leaf, leaves=fluttering leaves, mushroom, christmas_tree""",
    "fruit": """grapes, melon, watermelon, tangerine, lemon, banana, pineapple, mango, apple=red apple, green_apple,
        pear, peach, cherries, strawberry, blueberries, kiwifruit=kiwi, tomato, olive, coconut""",
    "vegetable": """avocado, eggplant, potato, carrot, corn, hot_pepper, bell_pepper, cucumber, leafy_green, broccoli,
        garlic, onion, peanuts, chestnut, sweet_potato""",
    "meal": """bread, croissant, baguette_bread=baguette, pretzel, bagel, pancakes, waffle, cheese_wedge=cheese,
        meat_on_bone, poultry_leg=chicken leg, cut_of_meat=steak, bacon, hamburger, fries=french fries, pizza,
        hotdog=hot dog, sandwich, taco, burrito, fried_egg, stew=pot of food, green_salad=salad, popcorn, bento,
        rice_ball, rice=bowl of rice, curry, ramen=noodles, spaghetti, sushi, fried_shrimp, dumpling""",
    "dessert": """icecream=soft ice cream, shaved_ice, ice_cream, doughnut, cookie, birthday=birthday cake,
        cake=shortcake, cupcake, pie, chocolate_bar, candy, lollipop, custard, honey_pot, moon_cake, dango""",
    "drink": """baby_bottle, glass_of_milk, coffee, teapot, tea=cup of tea, champagne, wine_glass, cocktail,
        tropical_drink, beer=beer mug, beers=two beer mugs, tumbler_glass=whisky glass, cup_with_straw, bubble_tea,
        beverage_box=juice box""",
    "vehicle": """steam_locomotive, bullettrain_front=bullet train, train2=train, tram, bus, oncoming_bus, minibus,
        ambulance, fire_engine, police_car, taxi, oncoming_taxi, car=red car, blue_car, pickup_truck, truck=delivery
        truck, articulated_lorry=big truck, tractor, racing_car, racing_motorcycle=motorcycle, motor_scooter,
        bike=bicycle, scooter=kick scooter, skateboard""",
    "boat": "boat=sailboat, canoe, speedboat, passenger_ship, ferry, motor_boat, ship",
    "aircraft": """airplane, small_airplane, airplane_departure=departing airplane, helicopter, rocket, flying_saucer,
        satellite, parachute""",
    "weather": """sunny=sun, sun_with_face, full_moon, full_moon_with_face=moon face, crescent_moon, ringed_planet,
        star, star2=glowing star, cloud, partly_sunny=sun behind cloud, thunder_cloud_and_rain=thunderstorm,
        rain_cloud, snow_cloud, lightning=lightning cloud, tornado, rainbow, umbrella_with_rain_drops=umbrella,
        zap=lightning bolt, snowflake, snowman, comet, fire, droplet, ocean=water wave, earth_americas=earth""",
    "building": """house, house_with_garden, derelict_house_building=ruined house, hut, office=office building,
        hospital, bank, hotel, convenience_store=shop, school, factory, japanese_castle, european_castle=castle,
        church, mosque, classical_building=temple, tokyo_tower=tower, statue_of_liberty, tent, circus_tent,
        ferris_wheel, fountain""",
    "sport": """soccer=soccer ball, baseball, softball, basketball, volleyball, football=american football,
        rugby_football=rugby ball, tennis, flying_disc=frisbee, bowling, boxing_glove, martial_arts_uniform, golf,
        ice_skate, sled, dart=bullseye, 8ball=billiard ball, trophy, table_tennis_paddle_and_ball=ping pong,
        badminton_racquet_and_shuttlecock=badminton""",
    "instrument": """saxophone, accordion, guitar, musical_keyboard=piano, trumpet, violin, banjo,
        drum_with_drumsticks=drum, long_drum, maracas, flute, bell, microphone""",
    "clothing": """eyeglasses=glasses, dark_sunglasses=pair of sunglasses, goggles, necktie, shirt, jeans, scarf,
        gloves, coat, socks, dress, kimono, shorts, bikini, purse, handbag, school_satchel=backpack, thong_sandal=flip
        flop, mans_shoe=brown shoe, athletic_shoe=sneaker, hiking_boot, high_heel=high heel shoe, boot=tall boot,
        crown, womans_hat=sun hat, tophat=top hat, mortar_board=graduation cap, billed_cap=cap, ring, gem=diamond""",
    "toy": """balloon, gift=present, teddy_bear, nesting_dolls, yo-yo=yoyo, kite, crystal_ball, magic_wand,
        video_game=game controller, jigsaw=puzzle piece, jack_o_lantern=pumpkin, tada=party popper, game_die=dice""",
}

CATEGORIES: dict[str, tuple[str, ...]] = {
    "emotion": ("face", "cat face", "heart", "creature"),
    "animal": ("mammal", "reptile", "bird", "sea creature", "bug"),
    "nature": ("mammal", "reptile", "bird", "sea creature", "bug", "flower", "plant", "weather"),
    "food": ("fruit", "vegetable", "meal", "dessert", "drink"),
    "snack": ("fruit", "dessert"),
    "transport": ("vehicle", "boat", "aircraft"),
    "activity": ("sport", "instrument", "toy"),
    "object": ("clothing", "toy", "instrument", "sport", "building"),
}

NOT_DRAWN = ("clothing", "building", "meal", "instrument", "toy", "creature")
"""Subcategories that scorer and judge know but the pipeline is not asked to draw: too many details for its size."""

TOO_FINE = """orangutan, poodle, bison, ox, boar, ram, goat, llama, mammoth, rhinoceros, hippopotamus, rat, chipmunk,
    beaver, otter, skunk, badger, sloth, donkey, leopard, raccoon, kangaroo, bat, hedgehog, deer, cockroach, mosquito,
    fly, worm, scorpion, cricket, ant, steam locomotive, big truck, tractor, kick scooter, skateboard, motorcycle,
    motor scooter, bicycle, tram, golf, ice skate, sled, martial arts uniform, badminton, ping pong, bowling,
    hatching chick, dodo, black bird, peacock"""
"""Single captions that the pipeline is not asked to draw, for the same reason."""


def drawn() -> list[tuple[str, str, str]]:
    """The entries that the pipeline draws."""
    fine = set(" ".join(TOO_FINE.split()).split(", "))
    if unknown := fine - {caption for _, caption, _ in entries()}:
        raise ValueError(f"unknown captions: {sorted(unknown)}")
    return [entry for entry in entries() if entry[1] not in fine and entry[2] not in NOT_DRAWN]


def entries() -> list[tuple[str, str, str]]:
    """All (short_name, caption, subcategory) triples, in the order of the list."""
    found = []
    for subcategory, text in EMOJI.items():
        for entry in " ".join(text.split()).split(", "):
            short, _, caption = entry.partition("=")
            found.append((short, caption or short.replace("_", " "), subcategory))
    captions = [caption for _, caption, _ in found]
    words = [*captions, *EMOJI, *CATEGORIES]
    if len(set(words)) != len(words):
        raise ValueError(f"captions are not unique: {sorted({w for w in words if words.count(w) > 1})}")
    return found


def styled(caption: str, vendor: str) -> str:
    """The caption with its style words, as the models see it."""
    return f"{caption}, {vendor} style"


def drawn_answers() -> dict[str, list[str]]:
    """Like ``prompt_answers`` for the prompts that the pipeline draws."""
    kinds = {subcategory for _, _, subcategory in drawn()}
    names = {caption for _, caption, _ in drawn()}
    known = {}
    for prompt, answers in prompt_answers().items():
        right = [subcategory for subcategory in answers if subcategory in kinds]
        if prompt in names or prompt in kinds or (prompt in CATEGORIES and len(right) > 1):
            known[prompt] = right
    return known


def prompt_answers() -> dict[str, list[str]]:
    """Prompt without style -> the subcategories that answer it rightly, for everything in the list."""
    answers = {caption: [subcategory] for _, caption, subcategory in entries()}
    answers.update({subcategory: [subcategory] for subcategory in EMOJI})
    answers.update({word: list(parts) for word, parts in CATEGORIES.items()})
    return answers


def categories_of(subcategory: str) -> list[str]:
    """The category words that cover a subcategory (may be empty)."""
    return [word for word, parts in CATEGORIES.items() if subcategory in parts]
