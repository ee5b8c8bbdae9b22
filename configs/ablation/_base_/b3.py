# Tables 4 and 5: D3, but with five BiFPN cells. The paper does not say how many. With five, the
# network has the 24B multiply-adds of table 4, and the necks have the ratios of table 5.
_base_ = '../../efficientdet/d3_coco.py'

model = dict(neck=dict(num_cells=5))
