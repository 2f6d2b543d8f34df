"""`make bench`: everything that is measured, one after the other; results in build/benches."""

from benches import extraction, startup

startup.main()
extraction.main()
