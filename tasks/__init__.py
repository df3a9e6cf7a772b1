"""The implementation of the sessions in noxfile.py. It needs nox and the standard library."""
