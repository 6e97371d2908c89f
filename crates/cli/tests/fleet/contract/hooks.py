"""What schemathesis cannot know from the document: which texts are good ones, what a bundle is, and
what has to stay so that there is somebody to ask as."""

import itertools
import os
import zoneinfo
from pathlib import Path

import schemathesis
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

# Formats that the document names and no standard has.
HOUR = st.integers(0, 23).map(lambda hour: f"{hour:02}:{hour * 7 % 60:02}")
DAYS = st.sampled_from(["", "mon ", "mon-fri ", "mon,wed-thu ", "sat-sun "])
HOURS = st.builds("{}{}-{}".format, DAYS, HOUR, st.just("24:00"))
ZONES = sorted(zone for zone in zoneinfo.available_timezones() if "/" in zone)
WAVES = ["100", "10,40!,50", "1,99!", "50,50", "5,5,5,5,80", "20%,80%"]

schemathesis.openapi.format("time-zone", st.just("") | st.sampled_from(ZONES))
schemathesis.openapi.format("hours", st.just("") | HOURS)
schemathesis.openapi.format("waves", st.just("") | st.sampled_from(WAVES))

# A release that is there, or one that is not.
RELEASES = ["1.0.0", "1.1.0", "9.9.9", os.environ["LOCKSTEP_CONTRACT_RELEASE"], "0" * 20]
schemathesis.openapi.format("release", st.sampled_from(RELEASES))

# Random bytes are never a bundle. One release is there before, another comes in this way.
BUNDLES = [path.read_bytes() for path in Path(os.environ["LOCKSTEP_CONTRACT_BUNDLES"]).iterdir()]
schemathesis.openapi.media_type("application/x-tar", st.sampled_from(BUNDLES))

# The token and the lead's group as which all of it is asked, and a release to make campaigns of:
# without them nearly every answer would be a refusal.
KEPT = os.environ["LOCKSTEP_CONTRACT_KEPT"].split(",")


@schemathesis.hook
def filter_case(context, case):
    if case.method.upper() != "DELETE" and not case.path.endswith("/withdraw"):
        return True
    return (case.path_parameters or {}).get("id") not in KEPT


# Whoever is wrong too often waits, by its address. Here each request comes from another one, or
# after five wrong passwords nothing of signing in would be tested.
HOSTS = itertools.product(range(1, 9), range(250), range(1, 250))
ADDRESSES = itertools.cycle(f"127.{a}.{b}.{c}" for a, b, c in HOSTS)
PLAIN = HTTPAdapter.send


def send(self, request, **options):
    self.init_poolmanager(1, 1, source_address=(next(ADDRESSES), 0))
    return PLAIN(self, request, **options)


HTTPAdapter.send = send
