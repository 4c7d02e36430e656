"""A container's health check; fails unless the address answers with 200: python healthy.py URL."""

import sys
import urllib.request

urllib.request.urlopen(sys.argv[1], timeout=8).close()
