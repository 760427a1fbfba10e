// The plotting library with its style: a bundle of its own, loaded when the first picture is drawn.

import 'uplot/dist/uPlot.min.css'

export { default } from 'uplot'
