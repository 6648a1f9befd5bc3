# The demo, eight minutes: `web` follows the load out and in again. One task of it answers about 120 requests a second.
baseline  20        60s
ramp      20..300   90s
plateau   300       90s
spike     900       20s
after     200       60s
drop      10        180s
