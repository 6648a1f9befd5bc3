# For `api`, in the demo: two waves, one of three times the height of the other.
low     8         60s
rise    8..60     90s
high    60        60s
fall    60..8     60s
low     8         60s
small   20        80s
end     8         90s
