"""The words of the pocket world: every name is made of these, so that the pocket tokenizer knows each as one token."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words("""
    Alice Arthur Agnes Albert Amelia Anton Beatrice Bernard Bianca Boris Bruno Camille Carl Cecil Celia Clara Colin
    Conrad Dalia Daniel Daphne Diego Dora Edgar Edith Eleanor Elias Emil Erica Esther Ethan Felix Fiona Flora Frank
    Gabriel Gemma George Gilbert Gloria Greta Gustav Hannah Harold Hazel Hector Helen Henry Hugo Ida Ingrid Irene
    Isaac Ivan Ivy Jasper Joan Josef Julia Karen Keith Laura Leon Lily Linda Louis Lucas Lydia Mabel Marcus Maria
    Martin Matilda Max Mira Nadia Nathan Nina Noel Nora Olga Oliver Oscar Otto Paula Percy Peter Philip Phoebe
    Quentin Rachel Ralph Rita Robert Rosa Rufus Ruth Samuel Sara Sigrid Simon Sofia Stella Sylvia Thelma Theo
    Tobias Ursula Vera Victor Viola Walter Wanda Wilma Xavier Yvonne Zelda
""")
SURNAMES = _words("""
    Abbott Adler Archer Atkins Bailey Barlow Becker Bennett Bishop Bolton Bowman Brandt Briggs Burke Calder Carver
    Castle Chandler Clarke Conway Cooper Cortez Crane Dalton Dawson Decker Dixon Doyle Drake Dunn Eaton Ellis
    Emerson Evans Farrell Fischer Fletcher Foster Fowler Garcia Garner Gibson Graves Griffin Hale Hansen Harper
    Hayes Hobbs Holt Hudson Hunter Ibarra Irwin Jarvis Jensen Keller Kemp Kirby Knox Kramer Lambert Larsen Lawson
    Lopez Lowell Marsh Mason Mercer Meyer Miller Monroe Morris Murphy Nash Nelson Newton Nolan Norris Ortega Owens
    Page Palmer Parker Payne Pierce Porter Powell Quinn Ramsey Reed Reyes Rhodes Roth Russell Sawyer Schmidt Sharp
    Shaw Slater Spencer Sinclair Stone Sutton Tanner Thorpe Tucker Turner Vance Vogel Wagner Walsh Warner Weaver
    Webb Wilkins Winters York
""")
ADJECTIVES = _words("""
    Amber Ancient Bitter Blue Bold Brave Bright Broken Burning Calm Clever Cold Crimson Crystal Dark Distant Eager
    Empty Eternal Fading Faithful Fallen Foreign Forgotten Frozen Gentle Gilded Golden Gray Hidden Hollow Humble
    Iron Ivory Lonely Lost Lucky Midnight Narrow Patient Perfect Proud Purple Quiet Restless Sacred Scarlet Secret
    Silent Silver Sleeping Stolen Strange Velvet Wandering Wild
""")
NOUNS = _words("""
    Anchor Arrow Autumn Balcony Bell Bridge Candle Canyon Caravan Carpet Circle Clock Compass Crown Curtain Desert
    Dream Eagle Empire Falcon Feather Fire Forest Fortune Fountain Garden Ghost Harbor Horizon Horse Island Journey
    Kingdom Ladder Lantern Letter Lion Market Meadow Mirror Mountain Ocean Orchard Palace Piano Pilot Promise Rain
    Raven Road Shadow Ship Song Spring Station Storm Summer Temple Thief Tiger Tower Valley Violin Voyage Window
    Winter
""")
_TOWN_STEMS = _words("Ash Brad Clay Elm Fern Green Hart Kings Lang Mil Nor Oak Pen Red Stan Thorn West Wood Hazel Rock")
TOWNS = tuple(stem + ending for stem in _TOWN_STEMS for ending in _words("ford ton bury ham well mouth"))
COUNTIES = _words("""
    Devon Kent Essex Surrey Norfolk Suffolk Dorset Somerset Cornwall Cumbria Durham Rutland Cheshire Antrim Armagh
    Donegal Kerry Galway Clare Mayo Orkney Argyll Fife Lanark
""")
RIVERS = _words("""
    Avon Severn Thames Trent Tyne Mersey Humber Derwent Dee Don Tay Clyde Spey Forth Tweed Wye Usk Exe Tamar Stour
    Medway Cam Ouse Nene
""")
COLLEGES = _words("""
    Arden Balmoral Beacon Benedict Cedar Chester Crosby Downing Elgin Fairfax Franklin Girton Hadley Harrow Hilton
    Jesus Kendal Lincoln Linden Magnolia Merton Newman Oriel Pembroke Queens Radley Selwyn Trinity Wesley Whitman
    Wolsey Wycliffe Carmel Dover Hampton Laurel Monmouth Oxley Raleigh Sherwood Somerville Stratford Tudor Windsor
    Wellesley Zurich Vernon Ripley
""")
YEARS = tuple(str(year) for year in range(1880, 2000, 5))
