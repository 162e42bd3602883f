"""AutoAttack (Croce and Hein 2020, arXiv 2003.01690) and its parts: APGD, FAB, Square."""
