"""`c2l prepare`: records of data sets -> one uint8 array and one index, written so that a crash loses nothing."""
