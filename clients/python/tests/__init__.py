"""Tests of the client: against a daemon, and against sockets that say what a daemon never would."""
