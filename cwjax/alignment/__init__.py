"""Long recordings and the text that is read in them: which words of it are said when."""
