import sys

import pytest
import torch

from effdet_plugin.engine.host_memory import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='a setting of glibc')
def test_keep_freed_memory__large_tensors_come_without_new_pages() -> None:
    import resource

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.zeros(8 << 20)  # 32 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert keep_freed_memory()
    new_pages()  # the heap grows once
    # 4 x 8192 pages of 4 kB otherwise; a machine short of memory may take some back in between.
    assert min(new_pages() for _ in range(3)) < 1000
