"""E2guardian, with its filtering of contents switched off."""

import shutil
import subprocess
from pathlib import Path
from typing import override

from benchmarks.proxy.material import INSPECTED
from benchmarks.proxy.origin import certify
from benchmarks.proxy.proxies.base import Proxy, first_version
from benchmarks.proxy.proxies.squid import give, write

from urlward.engine.entry import Kind

_CONFIGURATION = """\
language = 'ukenglish'
languagedir = '/usr/share/e2guardian/languages'
preauthstoryboard = '/etc/e2guardian/preauth.story'
nodaemon = on
pidfilename = '{folder}/e2guardian.pid'
set_error = 'stderr'
set_warning = 'stderr'
set_info = 'stderr'
loglocation = '{folder}/access.log'
loglevel = 1
dstatlocation = '{folder}/dstats.log'
filterip = 127.0.0.1
filterports = 8080
transparenthttpsport = 8443
enablessl = on
sslcertificatepath = '{folder}/trusted'
cacertificatepath = '{folder}/authority.pem'
caprivatekeypath = '{folder}/authority.key'
certprivatekeypath = '{folder}/leaf.key'
generatedcertpath = '{folder}/certificates/'
weightedphrasemode = 0
reverseaddresslookups = off
reverseclientiplookups = off
usexforwardedfor = off
httpworkers = 500
downloadmanager = '/etc/e2guardian/downloadmanagers/default.conf'
"""
_GROUP = """\
storyboard = '{folder}/group.story'
sslmitm = on
reportinglevel = 3
sitelist = 'name=greyssl,path={folder}/inspected'
sitelist = 'name=banned,messageno=500,path={folder}/sites'
urllist = 'name=banned,messageno=501,path={folder}/urls'
"""
_STORY = """\
.Include</etc/e2guardian/common.story>
.Include</etc/e2guardian/site.story>
function(sslcheckmitm)
if(true) return sslcheckmitmgreyonly
"""


class E2guardian(Proxy):
    """Knows sites and URLs by sorted lists; one thread a connection."""

    name = "e2guardian"
    title = "e2guardian"
    programs = ("e2guardian", "openssl")
    package = "e2guardian"
    ports = (8080, 8443)
    blocked = frozenset({200, 403})
    note = "site list and URL list, no phrases; decrypts sites of its `greyssl` list"

    @override
    @classmethod
    def version(cls) -> str:
        return first_version("e2guardian", "-v")

    @override
    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    @override
    def prepare(self) -> None:
        for name in ("certificates", "trusted"):
            (self.folder / name).mkdir(exist_ok=True)
        certify(self.folder, ["unused.test"], authority="authority", leaf="leaf")
        shutil.copy(self.origin_authority, self.folder / "trusted")
        subprocess.run(["openssl", "rehash", str(self.folder / "trusted")], check=True, capture_output=True)
        (self.folder / "group.story").write_text(_STORY)
        (self.folder / "e2guardian.conf").write_text(_CONFIGURATION.format(folder=self.folder))
        (self.folder / "e2guardianf1.conf").write_text(_GROUP.format(folder=self.folder))
        write(self.folder / "inspected", list(INSPECTED))
        self.change(0)
        give(self.folder, "e2guardian")

    @override
    def command(self) -> list[str]:
        return ["e2guardian", "-N", "-c", str(self.folder / "e2guardian.conf")]

    @override
    def change(self, version: int) -> None:
        entries = self.material.peers[version]
        write(self.folder / "sites", sorted({e.host for e in entries if e.kind in (Kind.DOMAIN, Kind.HOST)}))
        write(self.folder / "urls", sorted({f"{e.host}{e.path.rstrip('/')}" for e in entries if e.path}))
