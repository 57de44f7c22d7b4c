"""`c2l prepare`: records of data sets -> one uint8 array and one index; survives a crash at any moment."""
