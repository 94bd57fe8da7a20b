"""One self-contained page of HTML about a finished run or a folder of results, made from what they left behind.

make.py        the command's work: which kind of folder it is, and the file that is written
runs.py        a run, of a segmenter or of a generator
cases.py       the best, the median and the worst case, slice by slice
generators.py  what a generator does, in words and numbers; its histograms are the only part that loads TensorFlow
grid.py        a folder of results
page.py        elements of HTML, escaped, and the page's frame
charts.py      curves, boxes, histograms and orders, as SVG
style.py       the page's style sheet and its script
"""
