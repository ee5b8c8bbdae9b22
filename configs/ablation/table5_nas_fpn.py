# Table 5: repeated NAS-FPN. The paper: AP 43.16. Ghiasi et al., CVPR 2019, figure 6 f, as nodes
# (level, inputs): the maps P3..P7 are 0..4, the nodes 5..11; the last of a level is its output.
_base_ = '_base_/b3.py'

fine = [(1, [3, 1]), (1, [5, 1]), (0, [6, 0]), (1, [7, 6])]
coarse = [(2, [2, 8, 7]), (4, [4, 9, 6]), (3, [10, 9])]
model = dict(neck=dict(topology=fine + coarse, fusion='sum'))
