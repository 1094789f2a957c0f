"""Puts the stand-ins where a config finds them, as a user's own models would be."""

import time

from rule_segmenter import RuleSegmenter
from rule_vlm import RuleVLM

from atss_ext.registry import MODELS
from atss_ext.vlsam import VlsamError

MODELS.register_module(module=RuleSegmenter, force=True)
MODELS.register_module(module=RuleVLM, force=True)


@MODELS.register_module(force=True)
class FussyVLM(RuleVLM):
    """Fails in two ways: with a sentence where there is no green, with a bug where there is no blue."""

    def _answer(self, image):
        answer = super()._answer(image)
        if 'blue' not in answer.text:
            raise ZeroDivisionError('no blue')
        if 'green' not in answer.text:
            raise VlsamError('there is no green in this image')
        return answer


@MODELS.register_module(force=True)
class SlowVLM(RuleVLM):
    """Takes its time, and notes every image it is asked about in ``asked.txt``."""

    def answer(self, images, questions, seeds):
        time.sleep(0.5)
        with open('asked.txt', 'a', encoding='utf-8') as log:
            log.write('asked\n')
        return super().answer(images, questions, seeds)


@MODELS.register_module(force=True)
class InterruptedVLM(RuleVLM):
    """Whoever waits for it loses patience at the first image with blue in it."""

    def _answer(self, image):
        answer = super()._answer(image)
        if 'blue' in answer.text:
            raise KeyboardInterrupt
        return answer
